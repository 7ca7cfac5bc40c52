"""The whole loop for real, made small: two rounds of a tiny random model, every stage as its own process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cut_dist.judges.base import Judged
from cut_dist.online.records import Response, read_records
from cut_dist.online.summary import read_rounds

SMALL = [
    "+experiment=online_smoke", "run.name=small", "instructions.per_round=4", "instructions.heldout=2",
    "data.heldout_size=1", "train.max_steps=1", "generator.max_new_tokens=8", "evaluation.max_new_tokens=8",
    "eval.generations=0", "eval.train_sample=0", "checkpoint.at_end=false", "online.mix_earlier=0.5",
]  # fmt: skip


def start(root: Path, folder: Path) -> str:
    env = {**os.environ, "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(root / "launch" / "online.py"), *SMALL]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=550)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.distributed
def test_two_rounds_from_a_random_model_to_a_report(root, tmp_path):
    start(root, tmp_path)
    online = tmp_path / "runs" / "online_smoke" / "small"
    rounds = read_rounds(online)
    assert [each.number for each in rounds] == [0, 1, 2]
    for each in rounds:
        assert each.answers == 2 and 0 <= each.evaluation["verifiable"]["strict"] <= 1
    for each in rounds[1:]:
        assert (each.responses, each.judged, each.steps, each.trained) == (4, 4, 1, True)
        folder = online / f"round_{each.number}"
        assert len(read_records(folder / "judgments.jsonl", Judged)) == 4
        assert all(row.response_tokens <= 8 for row in read_records(folder / "responses.jsonl", Response))
        assert (folder / "train" / "model" / "model.safetensors").is_file()
    lineage = json.loads((online / "round_2" / "train" / "lineage.json").read_text())
    assert lineage["parent"]["run"] == "round_1/train"
    made = lineage["data"]["made_by"]["inputs"]
    assert made["judgments"]["made_by"]["settings"]["name"] == "verifiable"
    sampled_from = made["responses"]["made_by"]["settings"]["model"]
    assert "round_1/train/model" in json.dumps(sampled_from) and "sha256" in json.dumps(sampled_from)
    assert made["responses"]["made_by"]["inputs"]["instructions"]["made_by"]["settings"]["round"] == 2
    assert rounds[2].counts["from_earlier_rounds"] == 2
    page = (online / "report.html").read_text()
    assert "2 of 2 rounds trained" in page and page.count('class="sample"') == 2
    assert "2 rounds done" in start(root, tmp_path)
