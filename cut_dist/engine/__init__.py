"""All that knows DeepSpeed."""


class MainRankError(RuntimeError):
    """What a rank, mostly rank 0, did for all failed; every rank raises it, with that rank's reason."""
