"""All that knows DeepSpeed."""


class MainRankError(RuntimeError):
    """What rank 0 did for all failed; every rank raises it, with rank 0's reason."""
