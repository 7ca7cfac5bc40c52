"""The rate limit on a clock of its own: in no 60 seconds more than the limit, and no slower than it allows."""

from __future__ import annotations

import asyncio

import pytest

from cut_dist.endpoint.rate import RateLimit


class Clock:
    """Time that passes only by sleeping."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        await asyncio.sleep(0)


def times(limit: float | None, amounts: list[float], actual: float | None = None) -> list[float]:
    """When each amount was let in, one second of work between them; each is set to `actual` at once, if given."""

    async def run() -> list[float]:
        clock = Clock()
        rate, entered = RateLimit(limit, clock, clock.sleep), []
        for amount in amounts:
            entry = await rate.enter(amount)
            entered.append(clock.now)
            entry.amount = entry.amount if actual is None else actual
            await clock.sleep(1)
        return entered

    return asyncio.run(run())


def test_no_limit_lets_in_all():
    assert times(None, [1e9] * 3) == [0, 1, 2]


@pytest.mark.parametrize("amounts", [[1] * 50, [3, 1, 7, 2] * 12, [10] * 9])
def test_any_minute_holds_no_more_than_the_limit(amounts: list[float]):
    entered = times(10, amounts)
    for start in entered:
        within = [amount for at, amount in zip(entered, amounts) if start <= at < start + 60]
        assert sum(within) <= 10
    assert entered[-1] <= 61 * sum(amounts) / 5  # two minutes together hold more than one limit: what waits is let in


def test_an_amount_above_the_limit_goes_alone():
    assert times(10, [25, 1, 25]) == pytest.approx([0, 60, 120])


def test_an_amount_set_right_makes_room():
    assert times(10, [10] * 5, actual=2) == pytest.approx([0, 60, 120, 180, 240])
    assert times(10, [4] * 4, actual=1) == [0, 1, 2, 3]


def test_who_came_first_goes_first():
    async def run() -> list[int]:
        clock = Clock()
        rate, order = RateLimit(2, clock, clock.sleep), []

        async def enter(number: int) -> None:
            await rate.enter(1)
            order.append(number)

        await asyncio.gather(*(enter(number) for number in range(9)))
        return order

    assert asyncio.run(run()) == list(range(9))
