"""A stage goes on where it was interrupted, refuses other settings, and its rows survive a kill."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from cut_dist.judges.base import Judged
from cut_dist.online.records import Instruction, RecordError, RecordLog, read_records, write_records
from cut_dist.online.stage import StageError, manifest_path, open_stage, partial_path, read_manifest

ROWS = [
    Judged("a", True, None),
    Judged("b", False, "The third word is wrong."),
    Judged("c", None, None, {"reason": "x"}),
]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "responses.jsonl"
    path.write_text('{"id": "a"}\n')
    return path


def begin(source: Path, **settings):
    return open_stage("judge", source.with_name("judgments.jsonl"), Judged, {"responses": source}, settings)


def test_a_stage_is_continued_and_then_found_done(source):
    with begin(source, judge="x") as stage:
        assert not stage.done and stage.rows == {}
        stage.append(ROWS[1:2])
    with begin(source, judge="x") as stage:
        assert stage.rows == {"b": ROWS[1]}
        stage.append([ROWS[2], ROWS[0]])
        stage.finish([stage.rows[id] for id in "abc"], {"rows": 3}, cost=0.5)
    assert read_records(stage.output, Judged) == ROWS
    manifest = read_manifest(stage.output)
    assert (manifest["counts"], manifest["cost"], manifest["settings"]) == ({"rows": 3}, 0.5, {"judge": "x"})
    assert sorted(path.name for path in source.parent.iterdir() if not path.name.startswith(".")) == [
        "judgments.jsonl", "judgments.jsonl.manifest.json", "responses.jsonl",
    ]  # fmt: skip
    with begin(source, judge="x") as stage:
        assert stage.done


@pytest.mark.parametrize("finished", [False, True])
def test_other_settings_or_inputs_are_named(source, finished):
    with begin(source, judge="x", temperature=0) as stage:
        stage.append(ROWS)
        if finished:
            stage.finish(ROWS, {})
    was = "was made" if finished else "was begun"
    with pytest.raises(StageError, match=f"{was} with other(?s:.*)settings.temperature: 0 → 1\n") as caught:
        begin(source, judge="x", temperature=1).__enter__()
    assert "judge" not in str(caught.value).splitlines()[1]
    source.write_text('{"id": "b"}\n')
    with pytest.raises(StageError, match="inputs.responses: "):
        begin(source, judge="x", temperature=0).__enter__()


def test_a_file_moved_is_the_same_input(source):
    with begin(source) as stage:
        stage.finish(ROWS, {})
    moved = source.rename(source.with_name("moved.jsonl"))
    with begin(moved) as stage:
        assert stage.done


def test_a_stage_without_rows_may_begin_otherwise(source):
    begin(source, judge="x").__enter__()
    with begin(source, judge="y") as stage:
        stage.append(ROWS)
    with pytest.raises(StageError, match="judge: "):
        begin(source, judge="x").__enter__()
    source.with_name("judgments.jsonl.begun.json").unlink()
    with pytest.raises(StageError, match="begun.json is missing, so what judgments.jsonl.partial was made of is not"):
        begin(source, judge="y").__enter__()


@pytest.mark.parametrize("damage", ["change", "remove"])
def test_an_output_that_was_touched_is_not_taken(source, damage):
    with begin(source) as stage:
        stage.finish(ROWS, {})
    stage.output.write_text("{}\n") if damage == "change" else stage.output.unlink()
    with pytest.raises(StageError, match="is not as it was when it was made"):
        begin(source).__enter__()
    manifest_path(stage.output).unlink()
    stage.output.unlink(missing_ok=True)
    with begin(source) as stage:
        assert not stage.done


def test_a_missing_input_is_named(source):
    source.unlink()
    with pytest.raises(StageError, match="responses.jsonl: there is no such file .responses of the stage judge. in /"):
        begin(source).__enter__()


def test_a_file_that_no_stage_made_is_not_written_over(source):
    output = source.with_name("judgments.jsonl")
    output.write_text("mine")
    with pytest.raises(StageError, match="judgments.jsonl is there and was made by no stage"):
        begin(source).__enter__()
    with pytest.raises(StageError, match="responses.jsonl is there and was made by no stage"):
        open_stage("judge", source, Judged, {"responses": source}, {}).__enter__()
    assert output.read_text() == "mine" and source.read_text() == '{"id": "a"}\n'


def test_killed_before_the_manifest_it_is_finished_again(source):
    with begin(source) as stage:
        stage.append(ROWS)
        write_records(stage.output, ROWS)
    with begin(source) as stage:
        assert not stage.done and len(stage.rows) == 3
        stage.finish(ROWS, {})


def test_what_was_written_down_first_counts(source):
    with begin(source) as stage:
        stage.append(ROWS[:1])
        stage.append([Judged("a", False, "Another sample of the same.")])
        assert stage.rows == {"a": ROWS[0]}


def test_one_process_at_a_time(source):
    with begin(source), pytest.raises(StageError, match="is being made by another process"):
        begin(source).__enter__()


def test_rows_of_all_ranks_are_found(source):
    with begin(source) as stage:
        stage.append(ROWS[:1])
        with RecordLog(partial_path(stage.output, 3), Judged) as log:
            log.append(ROWS[1:])
    with begin(source) as stage:
        assert set(stage.rows) == {"a", "b", "c"}
        stage.finish(ROWS, {})
    assert not list(source.parent.glob("*.partial*"))


def test_half_a_line_is_cut_off(tmp_path):
    path = tmp_path / "log"
    with RecordLog(path, Judged) as log:
        log.append(ROWS)
    whole = path.read_bytes()
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        with RecordLog(path, Judged) as log:
            kept = list(log.rows.values())
            log.append(ROWS)
            log.append(ROWS)
        assert kept == ROWS[: len(kept)]
        assert path.read_bytes() == whole


def test_unicode_of_any_kind_comes_back(tmp_path):
    rows = [Instruction("1", "a\u2028b\x85c \ud800 \x00 \r\n \U0001f600", {"n": [1, None]})]
    write_records(tmp_path / "rows", rows)
    assert read_records(tmp_path / "rows", Instruction) == rows
    with RecordLog(tmp_path / "log", Instruction) as log:
        log.append(rows)
    with RecordLog(tmp_path / "log", Instruction) as log:
        assert list(log.rows.values()) == rows


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"id": "a"}', "rows:1: is no Instruction .*'instruction'.*; a line holds id, instruction, metadata"),
        ("[1]", "rows:1: is no Instruction"),
        ("not json", "rows:1: is no Instruction"),
        ('{"id": "a", "instruction": "x"}\n\n{"id": "a", "instruction": "y"}', "rows:3: the id 'a' comes twice"),
    ],
)
def test_a_line_that_is_no_row_is_named(tmp_path, text, said):
    (tmp_path / "rows").write_text(text)
    with pytest.raises(RecordError, match=said):
        read_records(tmp_path / "rows", Instruction)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(RecordError, match="none can't be read: No such file"):
        read_records(tmp_path / "none", Instruction)


def test_secrets_stay_out_of_the_manifest(source, monkeypatch):
    monkeypatch.setitem(os.environ, "MY_API_KEY", "canary-0123456789")
    with begin(source, words="my canary-0123456789", api_key="x") as stage:
        stage.finish(ROWS, {})
    text = manifest_path(stage.output).read_text()
    assert "canary" not in text and json.loads(text)["settings"]["api_key"] == "***"


def test_a_rejection_without_words_is_no_judgment():
    with pytest.raises(ValueError, match="the judge rejects a without a word"):
        Judged("a", False, " ")
