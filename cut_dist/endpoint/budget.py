"""What requests cost, and a budget that no request under way can exceed."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import dataclass

from cut_dist.endpoint.config import EndpointConfig
from cut_dist.endpoint.errors import BudgetError
from cut_dist.endpoint.store import Store


@dataclass(frozen=True)
class Expense:
    """The most that a request under way may cost, in US dollars."""

    id: str
    worst: float


class Budget:
    """Spending of one account, over all starts; `spent` holds requests under way at the most they may cost.

    Args:
        cfg: prices and budget.
        store: where expenses are kept.
        account: whose they are, such as a run's judge.
        spent_elsewhere: US dollars of the same budget that another store has noted.
    """

    def __init__(self, cfg: EndpointConfig, store: Store, account: str, spent_elsewhere: float = 0.0) -> None:
        self._cfg, self._store, self._account = cfg, store, account
        self._priced = cfg.input_price > 0 or cfg.output_price > 0
        self._under_way = 0
        self._changed = asyncio.Condition()
        self.spent = store.spent(account) + spent_elsewhere

    def cost(self, prompt_tokens: int, completion_tokens: int) -> float:
        """US dollars."""
        return (prompt_tokens * self._cfg.input_price + completion_tokens * self._cfg.output_price) / 1e6

    async def reserve(self, worst: float) -> Expense | None:
        """Reserve the most that a request may cost, waiting for others under way where it does not fit beside them.

        Raises:
            BudgetError: nothing is under way and it does not fit.
        """
        if not self._priced:
            return None
        async with self._changed:
            while self._cfg.budget is not None and self.spent + worst > self._cfg.budget:
                if not self._under_way:
                    raise self._exceeded(worst)
                await self._changed.wait()
            self.spent += worst
            self._under_way += 1
        return Expense(uuid.uuid4().hex, worst)

    async def note(self, expense: Expense | None) -> None:
        """Write a reservation down, before its request is sent: should this process die, it counts as spent."""
        if expense is not None:
            await self._store.open_expense(expense.id, self._account, expense.worst)

    async def close(self, expense: Expense | None, actual: float | None) -> None:
        """A request has ended and the store knows it; `actual` None: nobody knows what it cost, so the worst stays."""
        if expense is None:
            return
        async with self._changed:
            self._under_way -= 1
            self.spent += 0.0 if actual is None else actual - expense.worst
            self._changed.notify_all()

    async def void(self, expense: Expense | None) -> None:
        """A request has ended that cost nothing."""
        if expense is not None:
            await self._store.settle_expense(expense.id, 0.0)
            await self.close(expense, 0.0)

    def _exceeded(self, worst: float) -> BudgetError:
        left = max(0.0, self._cfg.budget - self.spent)
        return BudgetError(
            f"the budget of ${self._cfg.budget:,.2f} is used up: ${self.spent:,.4f} is spent, ${left:,.4f} is left, "
            f"and the next request may cost ${worst:,.4f}. All replies are kept: raise endpoint.budget and start again"
        )
