"""launch/train.py with ilf_dpo and forward_prediction on one rank: a stop, the kept reference, what is recorded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from test_objectives import ROWS, write

from cut_dist.metrics import read_metrics
from cut_dist.own_loss import ReferenceLost, _read

pytestmark = pytest.mark.distributed


@pytest.fixture
def command(root, tmp_path):
    rows = [{**row, "id": f"{row['id']}.{copy}"} for copy in range(2) for row in ROWS]
    data = [f"data.path={write(tmp_path, rows)}", "data.heldout_size=6", f"data.cache_dir={tmp_path}/cache"]
    return [str(root / "launch/train.py"), "+experiment=smoke", "data=jsonl", *data, f"run.root={tmp_path}",
            "run.name=r", "eval.generations=1", "eval.max_new_tokens=2"]  # fmt: skip


def recorded(folder: Path, kind: str) -> list[dict]:
    return [row for row in read_metrics(folder / "metrics.jsonl") if row["kind"] == kind]


def test_dpo_learns_the_preference_and_goes_on_with_the_reference_it_began_with(command, run_ranks, tmp_path):
    folder, dpo = tmp_path / "smoke" / "r", [*command, "objective=ilf_dpo", "train.lr=5e-3"]
    run_ranks([*dpo, "run.stop_after=4"], 1)
    kept = (folder / "reference.json").read_bytes()
    assert len(json.loads(kept)["margins"]) == len(json.loads(kept)["ids"]) > 6
    (folder / "reference.json").rename(tmp_path / "kept.json")
    [output] = run_ranks(dpo, 1, status=1)
    assert "is missing or of other data" in output and "run.resume=never" in output
    (tmp_path / "kept.json").rename(folder / "reference.json")
    [output] = run_ranks(dpo, 1)
    assert (folder / "reference.json").read_bytes() == kept
    assert "loss of ilf_dpo" in output
    rows, (first, last) = recorded(folder, "train"), recorded(folder, "eval")
    # before the first step the model is its own reference: margin 0, loss ln 2
    assert rows[0]["loss"] == pytest.approx(0.693147, abs=1e-4)
    assert first["heldout/loss"] == pytest.approx(0.693147, abs=1e-4)
    assert [row["step"] for row in rows] == list(range(1, 11))
    assert rows[4]["reward_margin"] > rows[1]["reward_margin"] and rows[4]["loss"] < 0.65, "no new reference"
    assert last["heldout/reward_accuracy"] == 1 and last["heldout/loss"] < first["heldout/loss"]
    assert last["train/loss"] < 0.6 and "heldout/nll_authentic" in last and "train/nll_instruction" not in last


def test_forward_prediction_lowers_its_own_loss_and_answers_the_plain_instruction(command, run_ranks, tmp_path):
    folder = tmp_path / "smoke" / "r"
    run_ranks([*command, "objective=forward_prediction", "train.max_steps=6"], 1)
    first, last = recorded(folder, "eval")
    # two terms, each near ln(320) on a random model
    assert first["heldout/loss"] == pytest.approx(2 * 5.77, abs=0.4) and last["heldout/loss"] < first["heldout/loss"]
    assert first["heldout/nll_authentic"] > last["heldout/nll_authentic"]
    evaluation = json.loads((folder / "evaluations/step_00000006.json").read_text())
    assert evaluation["objective"] == "forward_prediction"
    assert "Judgment" not in evaluation["generations"][0]["prompt"]
    assert "### Instruction:" in evaluation["generations"][0]["prompt"]


@pytest.mark.parametrize("content", ["{", "[]", '{"data_content": "abc"}'])
def test_a_damaged_reference_is_told_with_the_remedy(tmp_path, content):
    (tmp_path / "reference.json").write_text(content)
    with pytest.raises(ReferenceLost, match="reference.json is damaged; restore the file, or .*run.resume=never"):
        _read(tmp_path / "reference.json", "abc")
