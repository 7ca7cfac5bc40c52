"""What can go wrong between a request and its reply, by what is to be done about it."""

from __future__ import annotations

from cut_dist.wording import UserError


class EndpointError(UserError):
    """The run can't go on; the message says why and what to do. What was answered so far is kept."""


class BudgetError(EndpointError):
    """The next request might cost more than is left of the budget."""


class SetAside(Exception):
    """This one request gets no reply, the others go on; the message is the reason."""


class Transient(Exception):
    """An attempt failed in a way that another one may not.

    Attributes:
        kind: what it is counted as: "HTTP 429", "timeout", "connection", "garbled reply".
        retry_after: seconds that the server asks to wait, if it does.
        paid: whether the server may have answered, and so charged, all the same.
    """

    def __init__(self, kind: str, words: str, *, retry_after: float = 0.0, paid: bool = False) -> None:
        super().__init__(words)
        self.kind, self.retry_after, self.paid = kind, retry_after, paid
