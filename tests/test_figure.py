from __future__ import annotations

import json

import pytest

from cut_dist.figure import save_figure
from cut_dist.lineage import write_lineage
from cut_dist.metrics import MetricsLog
from cut_dist.run_folder import write_config

SUMS = ("loss", "loss/instruction", "loss/authentic", "loss/align_p")


def test_the_figure_and_its_numbers(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    write_config(run, {"run": {"root": str(tmp_path)}}, {"seed": 1})
    data = {"path": str(tmp_path / "secret.json"), "content_hash": "abc", "counts": {"train": 3}}
    write_lineage(run, model={"name": "m"}, data=data, world_size=2, argv=["train.py"])
    with MetricsLog(run / "metrics.jsonl") as log:
        log.append({"kind": "eval", "step": 0, "heldout/p_inappropriate": 0.5, "heldout/p_others": 0.7})
        for step in (1, 2):
            log.append({"kind": "train", "step": step, **dict.fromkeys(SUMS, 1.0 / step)})
        log.append({"kind": "eval", "step": 2, "heldout/p_inappropriate": 0.1, "heldout/p_others": 0.8})
    save_figure(run, tmp_path / "docs" / "curves")
    assert (tmp_path / "docs" / "curves.png").read_bytes().startswith(b"\x89PNG")
    text = (tmp_path / "docs" / "curves.json").read_text()
    written = json.loads(text)
    assert [row["loss"] for row in written["train"]] == [1.0, 0.5]
    assert written["evaluations"][-1]["heldout/p_inappropriate"] == 0.1
    assert written["world_size"] == 2 and written["config"] == {"seed": 1} and written["machine"]["cores"] >= 1
    assert str(tmp_path) not in text, "what is committed names no path of the machine"


def test_a_folder_that_is_no_run(tmp_path):
    (tmp_path / "metrics.jsonl").touch()
    with pytest.raises(FileNotFoundError, match="lineage.json"):
        save_figure(tmp_path, tmp_path / "x")
