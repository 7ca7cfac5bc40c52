"""launch/refine.py's stage: every Align-N row is asked once, whatever interrupts it, and ILF reads the result."""

from __future__ import annotations

import json

import pytest
from local_models import online_config

from cut_dist.config import ConfigError, DataConfig
from cut_dist.data.prepare import prepare
from cut_dist.data.readers import read_triplets
from cut_dist.data.triplets import DataError
from cut_dist.generators.batches import BatchSampler
from cut_dist.model.tiny import byte_tokenizer
from cut_dist.online.records import Instruction, Response, read_records
from cut_dist.online.refining import RefinedRow, refine_stage
from cut_dist.online.stage import read_manifest

SETTINGS = ("generator.max_new_tokens=12", "generator.batch_size=2")
ROWS = [
    {"id": f"t{n}", "instruction": f"Count to {n}.", "input": "Please.", "output": f"one {n}", "score": 3,
     "judgment": None if n == 2 else f"It lacks {n}."}
    for n in range(6)
]  # fmt: skip


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "triplets.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def test_killed_and_started_again_it_refines_each_row_once(source, monkeypatch):
    cfg, output, sample, calls = online_config(*SETTINGS), source.with_name("refined.jsonl"), BatchSampler.sample, []

    def dies_in_the_second_batch(self, *args, **kwargs):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return sample(self, *args, **kwargs)

    monkeypatch.setattr(BatchSampler, "sample", dies_in_the_second_batch)
    with pytest.raises(KeyboardInterrupt):
        refine_stage(cfg, source, output)
    assert not output.exists()
    assert refine_stage(cfg, source, output) == 0
    assert len(calls) == 4, "three batches, one of them tried twice"
    straight = source.with_name("straight.jsonl")
    refine_stage(cfg, source, straight)
    assert output.read_bytes() == straight.read_bytes()
    before = len(calls)
    assert refine_stage(cfg, source, output) == 0 and len(calls) == before

    rows = {row.id: row for row in read_records(output, RefinedRow)}
    responses = read_records(source.with_name("refined.jsonl.responses.jsonl"), Response)
    answers = {row.id: row.response for row in responses}
    counts = read_manifest(output)["counts"]
    assert sum(counts.values()) == len(ROWS) and counts["align_p"] == 1 and len(rows) == counts["refined"] + 1
    # the random model writes a NUL byte into one, which training would refuse
    assert counts["NUL byte"] == 1 and "\0" in answers["t5"] and "t5" not in rows
    assert rows["t2"] == RefinedRow("t2", "Count to 2.\nPlease.", "one 2", None, None)
    for row in rows.values():
        if row.judgment is not None:
            assert row.refinement == answers[row.id] and row.refinement.strip()


def test_the_request_holds_instruction_response_and_judgment_and_ilf_trains_on_the_answer(source):
    output = source.with_name("refined.jsonl")
    refine_stage(online_config(*SETTINGS), source, output)
    asked = read_records(source.with_name("refined.jsonl.requests.jsonl"), Instruction)
    assert [each.id for each in asked] == ["t0", "t1", "t3", "t4", "t5"]
    told = "Instruction: Count to 4.\nPlease.\n\nResponse: one 4\n\nJudgment: It lacks 4."
    assert asked[3].instruction.endswith(told)
    cfg = DataConfig(path=str(output), cache_dir=str(source.parent / "cache"))
    data = prepare(cfg, byte_tokenizer(), seed=0, fake_judgment="Perfect.", objective="ilf_dpo")
    refinements = {row.id: row.refinement for row in read_triplets(str(output))[0]}
    assert data.counts["left_out_by_objective"] == 1
    for pair in data.train:
        assert bytes(pair.response_ids[:-1].tolist()).decode() == refinements[pair.id]


def test_what_cannot_be_refined_is_refused(source):
    output = source.with_name("refined.jsonl")
    with pytest.raises(ConfigError, match="generator.samples=2: must be 1"):
        refine_stage(online_config("generator.samples=2"), source, output)
    source.write_text(json.dumps(ROWS[2]) + "\n")
    with pytest.raises(DataError, match="nothing to refine"):
        refine_stage(online_config(), source, output)
