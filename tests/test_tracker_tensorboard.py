"""TensorBoard: what it wrote is read back by its own reader."""

from __future__ import annotations

from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util import tensor_util

from cut_dist.config import TrackerConfig
from cut_dist.tracker import TrackedRun, Tracker, make_tracker

CANARY = "canary-0123456789abcdef0123456789abcdef"


def start(folder: Path, step: int = 0, config: dict | None = None) -> Tracker:
    return make_tracker(TrackerConfig(name="tensorboard"), TrackedRun(folder, config or {}, {}, step))


def read(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder / "tensorboard"), {"tensors": 0, "scalars": 0}).Reload()


def text(events: EventAccumulator, tag: str) -> str:
    return tensor_util.make_ndarray(events.Tensors(f"{tag}/text_summary")[-1].tensor_proto).item().decode()


def test_numbers_tables_and_configuration_without_secrets(tmp_path, monkeypatch):
    monkeypatch.setenv("SOME_API_KEY", CANARY)
    run = start(tmp_path, config={"objective": {"lam": 1.1}, "judge": {"api_key": "hidden"}, "note": CANARY})
    run.log({"train/loss": 0.5, "train/skipped": False}, 1)
    run.log_table("generations", [{"id": "a|b", "response": "<b>one\ntwo</b>", "p": 0.25}], 1)
    run.log_table("judged_tokens", [], 1)
    run.finish()
    events = read(tmp_path)
    assert [(event.step, event.value) for event in events.Scalars("train/loss")] == [(1, 0.5)]
    assert [event.value for event in events.Scalars("train/skipped")] == [0.0]
    table = text(events, "eval/generations")
    assert table == "| id | response | p |\n| --- | --- | --- |\n| a&#124;b | &lt;b>one⏎two&lt;/b> | 0.2500 |"
    written = text(events, "config")  # each line indented by four, which is a block of code in Markdown
    assert written == "    objective:\n      lam: 1.1\n    judge:\n      api_key: '***'\n    note: '***'\n"
    assert "eval/judged_tokens/text_summary" not in events.Tags()["tensors"]


def test_a_continued_run_replaces_the_steps_that_it_makes_again(tmp_path):
    run = start(tmp_path)
    for step in (1, 2, 3):
        run.log({"train/loss": 1.0}, step)
    del run  # killed after a checkpoint of step 1: nothing is closed
    again = start(tmp_path, step=1)
    again.log({"train/loss": 2.0}, 2)
    again.finish()
    losses = [(event.step, event.value) for event in read(tmp_path).Scalars("train/loss")]
    assert losses == [(1, 1.0), (2, 2.0)]


@pytest.mark.parametrize("broken", ["add_scalar", "flush"])
def test_a_failure_never_reaches_training_and_is_said_once(tmp_path, monkeypatch, caplog, broken):
    from torch.utils.tensorboard import SummaryWriter

    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    run = start(tmp_path)
    monkeypatch.setattr(SummaryWriter, broken, fail)
    for step in (1, 2):
        run.log({"train/loss": 1.0}, step)
    run.finish()
    assert caplog.text.count("No space left on device") == 1
