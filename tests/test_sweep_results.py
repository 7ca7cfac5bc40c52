"""A sweep's results: what is read from its jobs' folders, how they are ranked, what results.csv says."""

from __future__ import annotations

import csv
import json
import math

import pytest
from sweep_folder import SECONDS, TOKENS, jobs_of, write_job, write_sweep

from cut_dist.sweep.metric import METRICS
from cut_dist.sweep.results import SweepError, ranks, read_sweep, write_csv

SWEPT = {"objective.lam": ["1.1", "1.2"], "objective.alpha": ["0.5", "1"]}


@pytest.fixture
def sweep(tmp_path):
    return write_sweep(tmp_path / "sweeps" / "paper", SWEPT)


def ranked(folder, metric="loss", direction="min") -> dict[int, int]:
    return ranks(read_sweep(folder), metric, direction)


def rows(folder, metric="loss", direction="min") -> list[dict[str, str]]:
    found = read_sweep(folder)
    with write_csv(found, ranks(found, metric, direction)).open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_row_says_what_the_job_came_to(sweep):
    jobs = jobs_of(sweep)
    final = {"loss": 2.125, "share_inappropriate": 0.0625}
    write_job(sweep, jobs[0], final, verifiable={"strict": 0.4, "loose": 0.5})
    row, *others = rows(sweep)
    settings = [row[key] for key in ("index", "name", "status", "objective.lam", "objective.alpha")]
    assert settings == ["0", "alpha-0.5_lam-1.1", "finished", "1.1", "0.5"]
    numbers = {key: float(value) for key, value in row.items() if key in METRICS and value}
    assert numbers["loss"] == 2.125 and numbers["loss_before"] == 3.0
    assert numbers["share_inappropriate"] == 0.0625 and numbers["share_inappropriate_before"] == 0.2
    assert numbers["train_loss"] == pytest.approx(2.125 + 0.1 * math.sin(2.3 * 20))
    assert (numbers["steps"], numbers["seconds"], numbers["tokens_per_s"]) == (20, 83.4, TOKENS / SECONDS)
    assert (row["verifiable_strict"], row["verifiable_loose"], row["reason"]) == ("0.4", "0.5", "")
    assert [other["status"] for other in others] == ["waiting"] * 3, "no job.json yet"
    assert [other["index"] for other in others] == ["1", "2", "3"]
    assert not any(other[key] for other in others for key in (*METRICS, "rank", "verifiable_strict"))


def test_the_file_is_rfc_4180_and_the_same_each_time(sweep):
    for job in jobs_of(sweep):
        write_job(sweep, job, {"loss": 2.0})
    rows(sweep)
    first = (sweep / "results.csv").read_bytes()
    head, *lines = first.decode().split("\r\n")
    assert head.startswith("index,name,status,rank,objective.lam,objective.alpha,loss,nll_instruction,")
    assert head.endswith(",train_loss,steps,tokens_per_s,seconds,reason") and len(lines) == 5 and lines[-1] == ""
    rows(sweep)
    assert (sweep / "results.csv").read_bytes() == first


def test_ranks_ties_and_what_has_none(sweep):
    losses = [2.5, 2.0, 2.0, float("nan")]
    for job, loss in zip(jobs_of(sweep), losses):
        write_job(sweep, job, {"loss": loss, "p_others": 0.5 + 0.1 * job["index"]})
    assert list(ranked(sweep).items()) == [(1, 1), (2, 1), (0, 3)], "the best first, ties share a rank"
    assert list(ranked(sweep, "p_others", "max")) == [3, 2, 1, 0]
    assert rows(sweep)[3]["loss"] == "nan"
    assert ranked(sweep, "verifiable_strict", "max") == {}


def test_failed_stopped_and_running_jobs_have_numbers_but_no_rank(sweep):
    states = ["failed", "stopped", "running", "finished"]
    for job, status in zip(jobs_of(sweep), states):
        reason = "rank 1: out of memory,\nsee console.log" if status == "failed" else None
        write_job(sweep, job, {"loss": 1.0 + job["index"]}, status=status, reason=reason)
    found = rows(sweep)
    assert [row["status"] for row in found] == states
    assert [row["rank"] for row in found] == ["", "", "", "1"]
    assert found[0]["loss"] == "1.0" and found[0]["reason"] == "rank 1: out of memory,\nsee console.log"


def test_an_evaluation_before_training_is_no_result(sweep):
    write_job(sweep, jobs_of(sweep)[0], {"loss": 1.0}, status="running", steps=3)
    row = rows(sweep)[0]
    assert (row["loss"], row["loss_before"]) == ("", "3.0")


def test_text_that_a_spreadsheet_would_run_is_made_harmless(tmp_path):
    values = ["=cmd|'/c calc'!A0", "@SUM(A1)", "+x", "-x", "-1e-5", "+2", "plain, with comma"]
    folder = write_sweep(tmp_path / "s", {"data.path": values})
    jobs = jobs_of(folder)
    for index, job in enumerate(jobs):
        job["name"] = f"job-{index}"
    content = json.loads((folder / "sweep.json").read_text()) | {"jobs": jobs}
    (folder / "sweep.json").write_text(json.dumps(content))
    write_job(folder, jobs[0], {"loss": 1.0}, status="failed", reason="=HYPERLINK(1)")
    found = rows(folder)
    assert [row["data.path"] for row in found] == [
        "'=cmd|'/c calc'!A0", "'@SUM(A1)", "'+x", "'-x", "-1e-5", "+2", "plain, with comma",
    ]  # fmt: skip
    assert found[0]["reason"] == "'=HYPERLINK(1)"


@pytest.mark.parametrize("name", ["metrics.jsonl", "job.json", "evaluation.json"])
@pytest.mark.parametrize("content", ["not json\n", "[1]\n", "\udcff\n"])
def test_a_damaged_record_is_named_and_hides_no_other_job(sweep, name, content):
    jobs = jobs_of(sweep)
    damaged, good = (write_job(sweep, job, {"loss": 2.0}) for job in jobs[:2])
    (damaged / name).write_bytes(content.encode("utf-8", "surrogateescape"))
    first, second, *_ = rows(sweep)
    assert first["reason"].startswith(f"{name} can't be read")
    assert (second["status"], second["loss"], second["reason"]) == ("finished", "2.0", "")


def test_what_is_no_sweep_or_no_metric_is_refused(sweep, tmp_path):
    with pytest.raises(SweepError, match="has no sweep.json: give the folder of a sweep"):
        read_sweep(tmp_path)
    write_job(sweep, jobs_of(sweep)[0], {"loss": 2.0}, verifiable={"strict": 0.5})
    with pytest.raises(SweepError, match=r"'los' .*choose one of loss, .*verifiable_strict; min or max"):
        ranked(sweep, "los")
    with pytest.raises(SweepError, match="min or max"):
        ranked(sweep, "loss", "least")
