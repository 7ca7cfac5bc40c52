from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from cut_dist import checkpoint
from cut_dist.config import Config
from cut_dist.config_compose import compose_config
from cut_dist.data.examples import Prepared
from cut_dist.metrics import MetricsLog
from cut_dist.run_folder import mark_finished, write_config
from cut_dist.run_start import CHECKPOINTS, METRICS, open_run, run_identity, set_aside


@pytest.fixture
def cfg(tmp_path) -> Config:
    return compose_config("train", ["+experiment=smoke", f"run.root={tmp_path}", "run.name=it"])


def data(content: str = "abc") -> Prepared:
    return Prepared(train=[], heldout=[], rejects=[], counts={}, content_hash=content)


def start(cfg: Config, prepared: Prepared | None = None, world_size: int = 2):
    with ExitStack() as held:
        return open_run(cfg, prepared or data(), world_size, held)


def begun(cfg: Config, step: int | None) -> Path:
    """A run's folder as an interrupted run leaves it, with a checkpoint of `step` if any."""
    folder = Path(start(cfg).folder)
    write_config(folder, {}, run_identity(cfg, data()))
    with MetricsLog(folder / METRICS) as log:
        for at in (0, 4, 6):
            log.append({"kind": "eval", "step": at})
    if step is not None:
        stage = checkpoint.begin_stage(folder / CHECKPOINTS)
        (stage / "shard").write_bytes(b"weights")
        files = checkpoint.seal_share(stage, 0, 1)
        checkpoint.commit_stage(folder / CHECKPOINTS, step, files=files, world_size=2)
    return folder


def test_a_new_run(cfg, tmp_path):
    begins = start(cfg)
    assert (begins.status, begins.step, begins.checkpoint, begins.evaluated) == ("fresh", 0, None, None)
    assert begins.goes_on and begins.folder == str(tmp_path / "smoke" / "it")


def test_an_unfinished_run_goes_on_from_its_checkpoint_and_its_evaluations_count(cfg):
    folder = begun(cfg, 5)
    begins = start(cfg)
    assert (begins.status, begins.step, begins.evaluated) == ("resumed", 5, 4)
    assert begins.checkpoint == str(folder / CHECKPOINTS / "step_00000005")
    assert start(cfg, world_size=3).status == "refused"


STREAKS = [([0, 1, 1, 0, 1], 1), ([0, 0, 1, 1, 1], 3), ([1] * 5, 5), ([0] * 5, 0)]


@pytest.mark.parametrize(("skipped", "streak"), STREAKS)
def test_a_streak_of_steps_that_were_not_finite_is_remembered(cfg, skipped, streak):
    folder = begun(cfg, 5)
    with MetricsLog(folder / METRICS) as log:
        for step, bad in enumerate([*skipped, 1], start=1):  # step 6 came after the checkpoint
            log.append({"kind": "train", "step": step, "skipped": bool(bad)})
    assert start(cfg).bad_steps == streak


def test_without_a_checkpoint_it_starts_over_but_keeps_its_first_evaluation(cfg):
    begun(cfg, None)
    assert (start(cfg).status, start(cfg).step, start(cfg).evaluated) == ("fresh", 0, 0)


def test_other_data_under_the_same_path_are_refused(cfg):
    begun(cfg, 5)
    refused = start(cfg, data("other rows"))
    assert refused.status == "refused" and "data_content" in refused.message and not refused.goes_on


def test_a_finished_run(cfg):
    mark_finished(begun(cfg, 5), {"steps": 10})
    finished = start(cfg)
    assert finished.status == "finished" and "after 10 steps" in finished.message


def test_a_folder_in_use_is_refused(cfg):
    with ExitStack() as held:
        assert open_run(cfg, data(), 1, held).status == "fresh"
        refused = start(cfg)
    assert refused.status == "refused" and "in use" in refused.message
    assert start(cfg).status == "fresh", "let go of"


def test_damaged_metrics_are_a_refusal_that_all_ranks_hear_of(cfg):
    folder = begun(cfg, 5)
    (folder / METRICS).write_text("no record\n")
    refused = start(cfg)
    assert refused.status == "refused" and "metrics.jsonl:1" in refused.message


def test_set_aside_counts_up(tmp_path):
    folder = tmp_path / "run"
    assert set_aside(folder) is None
    for n in (1, 2):
        folder.mkdir()
        assert set_aside(folder) == tmp_path / f"run.previous-{n}"
