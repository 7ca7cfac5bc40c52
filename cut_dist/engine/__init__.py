"""All that knows DeepSpeed."""

from cut_dist.wording import UserError


class MainRankError(UserError, RuntimeError):
    """What a rank, mostly rank 0, did for all failed; every rank raises it, with that rank's reason."""
