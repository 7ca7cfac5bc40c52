"""The project's command on 2 ranks and on 1: a whole run, stop and resume, signals, refusals, the exported model."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from wandb_file import artifacts, items, read_records

from cut_dist.metrics import read_metrics

pytestmark = pytest.mark.distributed

CLOCK = ("seconds", "tokens_per_s", "tflops_per_rank", "mfu", "memory/rss_gib", "memory/peak_rss_gib")


def records(folder: Path) -> list[dict]:
    """metrics.jsonl without what depends on the clock and the machine."""
    rows = read_metrics(folder / "metrics.jsonl")
    return [{key: value for key, value in row.items() if key not in CLOCK} for row in rows]


@pytest.fixture(scope="module")
def runs(root, run_ranks, tmp_path_factory):
    """One run straight through, by the real launcher, and one stopped after 4 of its 10 steps, both on 2 ranks."""
    folder = tmp_path_factory.mktemp("runs")
    # the tiny model's weights would all stay whole below the usual threshold
    partitioned = "deepspeed.zero_optimization.stage3_param_persistence_threshold=0"
    common = [str(root / "launch/train.py"), "+experiment=smoke", f"run.root={folder}", partitioned]
    port = str(29500 + os.getpid() % 500)
    bin_folder = Path(sys.executable).parent
    launcher = [str(bin_folder / "deepspeed"), "--num_gpus", "2", "--master_port", port]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PATH": f"{bin_folder}:{os.environ['PATH']}"}
    command = [*launcher, *common, "run.name=straight"]
    done = subprocess.run(command, cwd=folder, env=env, text=True, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert not list(Path("/dev/shm").glob(f"deepspeed_*{port}_*")), "shared-memory files were left behind"
    tracked = {"WANDB_MODE": "offline", "WANDB_DATA_DIR": str(folder), "WANDB_CACHE_DIR": str(folder)}
    stopped = run_ranks([*common, "tracker=wandb", "run.name=stopped", "run.stop_after=4"], 2, env=tracked)
    outputs = {"output": done.stdout, "stopped": stopped[0]}
    return {"folder": folder / "smoke", "common": common, "tracked": tracked, **outputs}


def test_a_whole_run_leaves_a_model_metrics_and_a_report(runs):
    folder = runs["folder"] / "straight"
    rows = records(folder)
    assert [row["step"] for row in rows if row["kind"] == "train"] == list(range(1, 11))
    assert rows[-1]["heldout/loss"] < rows[0]["heldout/loss"], "ten steps on a random model lower the held-out loss"
    for name in ("config.yaml", "lineage.json", "finished.json", "model/model.safetensors"):
        assert (folder / name).exists(), name
    assert (folder / "evaluations/step_00000010.json").exists()
    assert [p.name for p in sorted((folder / "checkpoints").glob("step_*"))] == ["step_00000005", "step_00000010"]
    assert "Before and after 10 steps" in runs["output"] and str(folder / "model") in runs["output"].replace("\n", "")
    lineage = json.loads((folder / "lineage.json").read_text())
    assert lineage["data"]["counts"]["train"] == 24


def test_the_exported_model_loads_by_its_path_alone(runs):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = runs["folder"] / "straight" / "model"
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    tokens = tokenizer("Hello", return_tensors="pt")
    assert model.config.use_cache
    assert torch.isfinite(model(**tokens).logits).all()
    assert model.generate(**tokens, max_new_tokens=4, do_sample=False).shape[1] == tokens["input_ids"].shape[1] + 4


def test_stopped_and_resumed_is_bit_for_bit_the_straight_run(runs, run_ranks):
    folder = runs["folder"] / "stopped"
    assert "stopped as asked after step 4" in runs["stopped"]
    assert not (folder / "finished.json").exists()
    first = records(folder)
    assert first == records(runs["folder"] / "straight")[: len(first)]

    output = run_ranks([*runs["common"], "run.name=stopped"], 1, status=1)[0]
    assert "was written by 2 ranks and this run has 1" in output

    output = run_ranks([*runs["common"], "tracker=wandb", "run.name=stopped"], 2, env=runs["tracked"])[0]
    assert "continuing" in output and "after step 4" in output
    assert records(folder) == records(runs["folder"] / "straight")
    for name in ("model/model.safetensors", "evaluations/inappropriate_first.json"):
        assert (folder / name).read_bytes() == (runs["folder"] / "straight" / name).read_bytes()
    check_one_wandb_run(folder)


def check_one_wandb_run(folder: Path) -> None:
    """Two starts on two ranks are one W&B run: rank 0's, whose steps go on where the first start stopped."""
    starts = [list(read_records(path)) for path in sorted((folder / "wandb").glob("offline-run-*/run-*.wandb"))]
    assert len(starts) == 2
    run_id = (folder / "wandb_id.txt").read_text().strip()
    assert {r.run.run_id for records in starts for r in records if r.HasField("run")} == {run_id}
    made = [{name for name, [last, *_] in artifacts(records).items() if last.type == "model"} for records in starts]
    assert made == [{"model-random_init"}, {"model-random_init", f"model-{run_id}"}]
    history = [[items(r.history.item) for r in records if r.HasField("history")] for records in starts]
    steps = [[line["train/global_step"] for line in lines if "train/loss" in line] for lines in history]
    assert steps == [[1, 2, 3, 4], [5, 6, 7, 8, 9, 10]]
    for lines, evaluated in zip(history, (0, 10)):
        facts = {key: value for line in lines for key, value in line.items()}
        assert facts["eval/judged_tokens/ncols"] == 8 and facts["eval/judged_tokens/nrows"] > 10
        assert facts["eval/generations/nrows"] == 1
        assert {line["train/global_step"] for line in lines if "eval/heldout/loss" in line} == {evaluated}


def test_a_finished_run_says_so_and_changes_nothing(runs, run_ranks):
    before = (runs["folder"] / "straight" / "metrics.jsonl").read_bytes()
    output = run_ranks([*runs["common"], "run.name=straight"], 1)[0]
    assert "finished after 10 steps" in output and "Before and after 10 steps" in output
    assert (runs["folder"] / "straight" / "metrics.jsonl").read_bytes() == before
    output = run_ranks([*runs["common"], "run.name=straight", "objective.lam=3"], 1, status=1)[0]
    assert "objective.lam: 1.5 → 3" in output


def test_resume_never_sets_the_earlier_run_aside(runs, run_ranks):
    folder = runs["folder"]
    before = (folder / "straight" / "metrics.jsonl").read_bytes()
    overrides = ["run.name=straight", "run.resume=never", "train.max_steps=1", "run.export=false"]
    output = run_ranks([*runs["common"], *overrides], 1)[0]
    assert "straight.previous-1" in output
    assert (folder / "straight.previous-1" / "metrics.jsonl").read_bytes() == before
    assert [row["step"] for row in records(folder / "straight") if row["kind"] == "train"] == [1]


def test_steps_that_are_not_finite_are_skipped_and_at_last_the_run_gives_up(root, run_ranks, tmp_path):
    worker = str(Path(__file__).with_name("rank_train.py"))
    job = [worker, "not_finite", "2,5,6,7", "+experiment=smoke", f"run.root={tmp_path}", "run.name=bad",
           "eval.at_start=false", "train.max_bad_steps=3"]  # fmt: skip
    output = run_ranks(job, 1, status=1)[0]
    rows = records(tmp_path / "smoke" / "bad")
    assert [row["step"] for row in rows if row["skipped"]] == [2, 5, 6, 7]
    assert [row["step"] for row in rows] == list(range(1, 8))
    assert "3 steps in a row" in output and "last checkpoint is of step 5" in output and "qs-" in output


def test_a_rank_that_fails_ends_the_job_at_once_with_its_traceback(tmp_path):
    bin_folder = Path(sys.executable).parent
    port = str(30500 + os.getpid() % 500)
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PATH": f"{bin_folder}:{os.environ['PATH']}",
           "PYTHONPATH": str(Path(__file__).parent.parent)}  # fmt: skip
    command = [str(bin_folder / "deepspeed"), "--num_gpus", "2", "--master_port", port,
               str(Path(__file__).with_name("rank_train.py")), "raise_on_rank_1", "3", "+experiment=smoke",
               f"run.root={tmp_path}", "run.name=failed", "eval.at_start=false"]  # fmt: skip
    done = subprocess.run(command, env=env, text=True, capture_output=True, timeout=300)
    assert done.returncode != 0
    assert "made to fail" in done.stdout + done.stderr
    assert not list(Path("/dev/shm").glob(f"deepspeed_*{port}_*")), "shared-memory files were left behind"


def test_sigterm_stop_file_and_a_killed_launcher_end_cleanly(root, tmp_path):
    """Each is answered by a checkpoint of the step at hand; the next start goes on from there."""
    bin_folder = Path(sys.executable).parent
    job = [str(root / "launch/train.py"), "+experiment=smoke", f"run.root={tmp_path}", "run.name=long",
           "train.max_steps=100000", "checkpoint.every=0"]  # fmt: skip
    port = str(30000 + os.getpid() % 500)
    launcher = [str(bin_folder / "deepspeed"), "--num_gpus", "1", "--master_port", port]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PATH": f"{bin_folder}:{os.environ['PATH']}"}
    folder, log = tmp_path / "smoke" / "long", tmp_path / "log"

    def steps() -> int:
        path = folder / "metrics.jsonl"
        return len(path.read_text().splitlines()) - 1 if path.exists() else 0

    def wait_for(condition) -> None:
        deadline = time.monotonic() + 120
        while not condition():
            assert time.monotonic() < deadline, log.read_text()[-3000:]
            time.sleep(0.1)

    for command, ask, status in (
        ([sys.executable, *job], lambda process: process.send_signal(signal.SIGTERM), 0),
        ([sys.executable, *job], lambda process: (folder / "STOP").touch(), 0),
        ([*launcher, *job], lambda process: process.kill(), -signal.SIGKILL),  # of the command, not of the ranks
    ):
        before = steps()
        with log.open("w") as file:
            process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=env, start_new_session=True)
        try:
            wait_for(lambda before=before: steps() >= before + 3)
            ask(process)
            assert process.wait(timeout=60) == status, log.read_text()[-3000:]
            wait_for(lambda: "stopped as asked after step" in log.read_text())
            wait_for(lambda: not (folder / ".lock").read_text())  # released last of all
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        done = steps()
        assert f"stopped as asked after step {done}" in log.read_text()
        assert (folder / "checkpoints" / f"step_{done:08d}" / "MANIFEST.json").exists()
    assert not list(Path("/dev/shm").glob(f"deepspeed_*{port}_*")), "shared-memory files were left behind"
