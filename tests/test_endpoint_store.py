"""The store of replies and expenses, and the budget that is kept in it."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest

from cut_dist.endpoint.budget import Budget
from cut_dist.endpoint.config import EndpointConfig
from cut_dist.endpoint.errors import BudgetError, EndpointError
from cut_dist.endpoint.protocol import Reply
from cut_dist.endpoint.store import Store

REPLY = Reply("Perfect.", "stop", 7, 3)
PRICED = EndpointConfig(base_url="http://x/v1", model="m", input_price=10.0, output_price=30.0, budget=1.0)


def test_a_reply_is_found_again_after_reopening(tmp_path: Path):
    store = Store(tmp_path / "new" / "s.sqlite")
    asyncio.run(store.save("a", "m", REPLY, None))
    assert store.reply("a") == REPLY and store.reply("b") is None
    store.close()
    again = Store(tmp_path / "new" / "s.sqlite")
    assert again.reply("a") == REPLY
    again.close()


def test_the_first_reply_to_a_request_stays(tmp_path: Path):
    store = Store(tmp_path / "s.sqlite")
    asyncio.run(store.save("a", "m", REPLY, None))
    asyncio.run(store.save("a", "m", Reply("other", "stop", 1, 1), None))
    assert store.reply("a") == REPLY
    store.close()


def test_many_writes_at_once_are_all_kept(tmp_path: Path):
    async def write(store: Store) -> None:
        await asyncio.gather(*(store.save(f"k{n}", "m", Reply(str(n), "stop", 1, 1), None) for n in range(500)))

    store = Store(tmp_path / "s.sqlite")
    asyncio.run(write(store))
    assert [store.reply(f"k{n}").text for n in range(500)] == [str(n) for n in range(500)]
    store.close()


def test_two_stores_on_one_file_see_each_other(tmp_path: Path):
    first, second = Store(tmp_path / "s.sqlite"), Store(tmp_path / "s.sqlite")
    asyncio.run(first.save("a", "m", REPLY, None))
    asyncio.run(second.save("b", "m", REPLY, None))
    assert first.reply("b") == second.reply("a") == REPLY
    first.close(), second.close()


def test_a_file_that_is_no_store_is_named(tmp_path: Path):
    path = tmp_path / "notes.txt"
    path.write_text("not a database, but long enough to be read as one " * 20)
    with pytest.raises(EndpointError, match="notes.txt"):
        Store(path)


def test_a_write_that_fails_is_told_to_all_who_wait(tmp_path: Path):
    async def write(store: Store) -> list[object]:
        return await asyncio.gather(*(store.save(str(n), "m", REPLY, None) for n in range(5)), return_exceptions=True)

    store = Store(tmp_path / "s.sqlite")
    with sqlite3.connect(tmp_path / "s.sqlite") as other:
        other.execute("DROP TABLE replies")
    results = asyncio.run(write(store))
    assert [type(result) for result in results] == [EndpointError] * 5 and "s.sqlite" in str(results[0])
    asyncio.run(store.open_expense("e", "a", 0.5))  # the file is not left in the middle of a transaction
    assert store.spent("a") == 0.5
    store.close()


async def spend(budget: Budget, store: Store, worst: float, actual: float | None) -> None:
    expense = await budget.reserve(worst)
    await budget.note(expense)
    if actual is not None:
        await store.save(expense.id, "m", REPLY, (expense.id, actual))
    await budget.close(expense, actual)


def test_spending_is_summed_over_starts_and_apart_for_each_account(tmp_path: Path):
    for start in range(3):
        store = Store(tmp_path / "s.sqlite")
        budget = Budget(PRICED, store, "run1/judge")
        assert budget.spent == pytest.approx(start * 0.2)
        asyncio.run(spend(budget, store, worst=0.4, actual=0.2))
        store.close()
    store = Store(tmp_path / "s.sqlite")
    assert Budget(PRICED, store, "run2/judge").spent == 0.0
    store.close()


def test_what_nobody_knows_the_cost_of_counts_at_its_highest(tmp_path: Path):
    store = Store(tmp_path / "s.sqlite")
    budget = Budget(PRICED, store, "a")
    asyncio.run(spend(budget, store, worst=0.4, actual=None))
    assert budget.spent == store.spent("a") == 0.4
    store.close()


def test_what_was_not_paid_for_costs_nothing(tmp_path: Path):
    async def run(budget: Budget) -> None:
        expense = await budget.reserve(0.4)
        await budget.note(expense)
        await budget.void(expense)

    store = Store(tmp_path / "s.sqlite")
    budget = Budget(PRICED, store, "a")
    asyncio.run(run(budget))
    assert budget.spent == store.spent("a") == 0.0
    store.close()


def test_the_budget_waits_for_requests_under_way_before_it_gives_up(tmp_path: Path):
    async def run(budget: Budget, store: Store) -> None:
        first = await budget.reserve(0.9)
        await budget.note(first)
        second = asyncio.ensure_future(budget.reserve(0.5))
        await asyncio.sleep(0.05)
        assert not second.done()  # 0.9 + 0.5 > 1.0, but the first may turn out cheaper
        await budget.close(first, 0.3)
        await asyncio.wait_for(second, 1)
        await budget.close(await second, 0.5)
        with pytest.raises(BudgetError, match=r"budget of \$1.00 .* \$0.8000 is spent, \$0.2000 is left.*\$0.3000"):
            await budget.reserve(0.3)

    store = Store(tmp_path / "s.sqlite")
    asyncio.run(run(Budget(PRICED, store, "a"), store))
    store.close()


def test_without_prices_nothing_is_kept_of_costs(tmp_path: Path):
    async def run(budget: Budget) -> None:
        assert await budget.reserve(0.0) is None

    store = Store(tmp_path / "s.sqlite")
    asyncio.run(run(Budget(EndpointConfig(base_url="http://x", model="m"), store, "a")))
    store.close()
