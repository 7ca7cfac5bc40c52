"""The stage that generates: its rows, interruptions, ranks, refusals."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from local_models import online_config

from cut_dist.generators.base import stable_seed
from cut_dist.generators.batches import BatchSampler
from cut_dist.online import generating
from cut_dist.online.config import StageConfig
from cut_dist.online.generating import generate_stage, generation_settings, make_requests
from cut_dist.online.records import Instruction, RecordError, Response, read_records, write_records
from cut_dist.online.stage import StageError, read_manifest

SETTINGS = ("generator.max_new_tokens=12", "generator.batch_size=2", "generator.samples=2")


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("instructions") / "instructions.jsonl"
    write_records(path, [Instruction(f"i{n}", "word " * n, {"n": n}) for n in (2, 0, 3, 1)])
    return path


@pytest.fixture(scope="module")
def straight(source) -> Path:
    """What one start on one rank writes."""
    output = source.with_name("straight.jsonl")
    assert generate_stage(online_config(*SETTINGS), source, output) == 0
    return output


def test_each_sample_has_its_own_id_and_seed():
    requests = make_requests([Instruction("a", "x"), Instruction("b", "y")], 3, seed=5)
    assert [request.id for request in requests] == ["a", "a#2", "a#3", "b", "b#2", "b#3"]
    assert len({request.seed for request in requests}) == 6
    assert requests[1].seed == stable_seed(5, "a#2") < 2**31
    assert stable_seed(42, "c") == 1618273020, "seeds must not change from version to version"


def test_responses_stand_in_the_order_of_the_instructions_with_their_metadata(source, straight):
    rows, instructions = read_records(straight, Response), read_records(source, Instruction)
    assert [(row.instruction_id, row.id) for row in rows] == [
        (each.id, id) for each in instructions for id in (each.id, f"{each.id}#2")
    ]
    assert all(row.metadata == {"n": len(row.instruction) // 5} for row in rows)
    assert rows[0].response != rows[1].response
    counts = read_manifest(straight)["counts"]
    assert counts["responses"] == 8 and counts["response_tokens"] == sum(row.response_tokens for row in rows)


def test_killed_after_any_batch_it_ends_with_the_same_bytes(source, straight, tmp_path, monkeypatch):
    cfg, sample = online_config(*SETTINGS), BatchSampler.sample
    output, calls = tmp_path / "responses.jsonl", []

    def once(self, batch, sampling):
        if len(calls) % 2:
            calls.append("killed")
            raise KeyboardInterrupt
        calls.append("sampled")
        return sample(self, batch, sampling)

    monkeypatch.setattr(BatchSampler, "sample", once)
    for _ in range(3):  # each start samples one batch and is interrupted in the next
        with pytest.raises(KeyboardInterrupt):
            generate_stage(cfg, source, output)
        assert not output.exists()
    assert generate_stage(cfg, source, output) == 0
    assert calls.count("sampled") == 4, "no batch was sampled twice"
    assert output.read_bytes() == straight.read_bytes()


def test_a_stage_that_is_done_is_left_as_it_is_and_other_settings_are_refused(source, straight, monkeypatch):
    monkeypatch.setattr(BatchSampler, "__init__", None)  # no model is loaded for it
    before = straight.read_bytes(), straight.stat().st_mtime_ns
    assert generate_stage(online_config(*SETTINGS), source, straight) == 0
    assert (straight.read_bytes(), straight.stat().st_mtime_ns) == before
    with pytest.raises(StageError, match="settings.temperature: 0.7 → 1.0"):
        generate_stage(online_config(*SETTINGS, "generator.temperature=1.0"), source, straight)


def test_the_generator_finds_the_output_whatever_the_configuration_names(source, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(generating, "make_generator", lambda cfg: seen.append(cfg.stage) or sys.exit(3))
    with pytest.raises(SystemExit):
        generate_stage(online_config("stage.output=elsewhere"), source, tmp_path / "out")
    assert seen == [StageConfig(str(source), str(tmp_path / "out"))]


def test_ids_that_would_collide_are_refused(tmp_path):
    write_records(tmp_path / "in", [Instruction("a", "x"), Instruction("a#2", "y")])
    with pytest.raises(RecordError, match="two responses would have the id 'a#2'"):
        generate_stage(online_config(*SETTINGS), tmp_path / "in", tmp_path / "out")


def test_settings_are_what_the_responses_depend_on():
    hf = generation_settings(online_config())
    assert hf["batch_size"] == 16 and hf["template"] == "alpaca" and hf["model"]["vocab_size"] == 320
    server = ("generator=endpoint", "generator.endpoint.base_url=http://x", "generator.endpoint.model=m")
    endpoint = generation_settings(online_config(*server))
    assert endpoint["model"] == "m" and not {"batch_size", "template", "precision"} & set(endpoint)
    assert generation_settings(online_config(*server, "generator.api=completions"))["template"] == "alpaca"
    assert endpoint == generation_settings(online_config(*server, "generator.endpoint.concurrency=3"))


@pytest.mark.distributed
def test_two_ranks_write_the_same_file_as_one(root, run_ranks, source, straight, tmp_path):
    output = tmp_path / "responses.jsonl"
    files = [f"stage.input={source}", f"stage.output={output}"]
    command = [str(root / "launch" / "generate.py"), "model=tiny_random", "data.template=alpaca", *SETTINGS, *files]
    logs = run_ranks(command, 2)
    assert "generated 4 of 4 responses" in logs[0] and "responses 8" in logs[0] and not logs[1].count("responses")
    rows = [[json.loads(line) for line in path.read_text().splitlines()] for path in (output, straight)]
    assert rows[0] == rows[1]
    assert output.read_bytes() == straight.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix != ".lock") == [
        "responses.jsonl", "responses.jsonl.manifest.json",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        ([], 2, "error: stage.input=null: name the file"),
        (["stage.input=nowhere.jsonl", "stage.output=o.jsonl"], 1, "error: nowhere.jsonl can't be read: No such file"),
        (["stage.input=i.jsonl", "stage.output=o.jsonl", "generator=vllm"], 2, "error: generator.name=vllm: "),
    ],
)
def test_the_command_says_a_mistake_in_a_sentence(root, tmp_path, arguments, status, said):
    (tmp_path / "i.jsonl").write_text('{"id": "a", "instruction": "x"}\n')
    command = [sys.executable, str(root / "launch" / "generate.py"), "model=tiny_random", *arguments]
    done = subprocess.run(command, cwd=tmp_path, text=True, capture_output=True, timeout=120)
    assert done.returncode == status and done.stderr.splitlines()[-1].startswith(said)
    assert "Traceback" not in done.stderr
