from __future__ import annotations

import threading
import traceback

import pytest

from cut_dist.data.ahead import made_ahead


def test_steps_come_in_order_from_one_thread_one_ahead():
    made, threads, following = [], set(), {step: threading.Event() for step in range(2, 8)}

    def make(step: int) -> int:
        made.append(step)
        threads.add(threading.current_thread())
        following[step].set()
        return step * step

    for expected, value in zip(range(2, 7), made_ahead(make, range(2, 7)), strict=True):
        assert value == expected**2
        if expected < 6:
            assert following[expected + 1].wait(timeout=10), "the next step is made while this one is used"
            assert made[-1] == expected + 1, "and no more than the next"
    assert made == list(range(2, 7))
    assert len(threads) == 1 and threading.current_thread() not in threads


def test_what_fails_is_raised_at_its_own_step_with_its_traceback():
    def make_in_vain(step: int) -> int:
        return 6 // (2 - step)

    values = made_ahead(make_in_vain, range(5))
    assert [next(values), next(values)] == [3, 6]
    with pytest.raises(ZeroDivisionError) as caught:
        next(values)
    assert "make_in_vain" in "".join(traceback.format_tb(caught.tb))


def test_no_step_and_an_early_end_leave_no_thread():
    before = threading.active_count()
    assert list(made_ahead(str, range(3, 3))) == []
    values = made_ahead(str, range(3))
    assert next(values) == "0"
    assert threading.active_count() == before + 1
    values.close()
    assert threading.active_count() == before
