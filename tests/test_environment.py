"""`python launch/env.py`: what it says, that no secret is in it, and that a failing probe does not end it."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys

import pytest

from cut_dist import environment, run_health
from cut_dist.environment import guarded, package_facts, variable_facts
from cut_dist.heartbeat import Beat
from cut_dist.lineage import write_lineage
from cut_dist.metrics import MetricsLog

CANARY = "canary-1234567890abcdef"


@pytest.fixture
def run(tmp_path):
    """A run's folder, two steps old, with a rank that has fallen silent."""
    folder = tmp_path / "runs/smoke/x"
    folder.mkdir(parents=True)
    facts = {"model": {"name": "tiny"}, "data": {"path": "d.jsonl"}, "world_size": 2}
    write_lineage(folder, **facts, argv=["launch/train.py", f"tracker.api_key={CANARY}"])
    with MetricsLog(folder / "metrics.jsonl") as log:
        for step in (1, 2):
            log.append({"kind": "train", "step": step, "loss": 8.5, "seconds": 0.25, "skipped": step == 2})
    (folder / "checkpoints/step_00000002").mkdir(parents=True)
    (folder / "ranks").mkdir()
    (folder / "ranks/00001.json").write_text(json.dumps(vars(Beat(1, "node2", 77, 2, "train.py:117", 1.0))))
    return folder


def test_the_command_prints_everything_and_no_secret(root, run, tmp_path):
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho no driver >&2\nexit 9\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    env = {
        **os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "WANDB_API_KEY": CANARY, "HF_TOKEN": "hf_12",
        "HTTPS_PROXY": f"http://me:{CANARY}@proxy:3128", "NCCL_SOCKET_IFNAME": "ib0", "OTHER": CANARY,
    }  # fmt: skip
    command = [sys.executable, str(root / "launch/env.py"), str(run)]
    done = subprocess.run([*command, "--json"], env=env, text=True, capture_output=True, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]
    assert CANARY not in done.stdout + done.stderr and "hf_12" not in done.stdout
    facts = json.loads(done.stdout)
    assert facts["packages"]["deepspeed"].startswith("0.") and facts["PyTorch"]["version"].startswith("2.")
    assert facts["DeepSpeed"]["accelerator"] in ("cpu", "cuda") and facts["system"]["host"]
    assert facts["NVIDIA"] == {"probe failed": "RuntimeError: nvidia-smi ended with 9: no driver"}
    variables = facts["variables"]
    assert variables["NCCL_SOCKET_IFNAME"] == "ib0" and variables["HTTPS_PROXY"] == "http://***@proxy:3128"
    assert variables["WANDB_API_KEY"] == variables["HF_TOKEN"] == "***" and "OTHER" not in variables
    assert facts["accounts"]["W&B"] == "logged in by WANDB_API_KEY"
    assert facts[f"run {run}"]["step 2"] == "loss 8.5000, 0.25 s, not taken: not finite"


def test_for_people_every_fact_is_a_line(root, capsys):
    show = runpy.run_path(str(root / "launch/env.py"))["show"]
    show({"PyTorch": {"version": "2.13", "a long value": "x" * 300}, "empty": {}})
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == ["PyTorch", "  version       2.13", f"  a long value  {'x' * 300}"]


def test_a_probe_that_fails_is_told_and_blotted(monkeypatch):
    monkeypatch.setenv("MY_TOKEN", CANARY)

    def probe():
        raise OSError(f"no {CANARY} there")

    assert guarded(probe) == {"probe failed": "OSError: no *** there"}


def test_a_probe_in_a_process_of_its_own_may_crash():
    facts = guarded(lambda: environment._child("import os; os.abort()"))
    assert "ended with -6" in facts["probe failed"]


def test_packages_are_those_of_setup_py(monkeypatch):
    facts = package_facts()
    assert {"torch", "deepspeed", "hydra-core", "flash-attn", "pytest"} <= facts.keys()
    asked = ["numpy>=99", "no-such-package>=1", 'no-such-extra>=1; extra == "flash"']
    monkeypatch.setattr(environment.metadata, "requires", lambda _: asked)
    facts = package_facts()
    assert facts["numpy"].endswith(", but >=99 is asked for")
    assert facts["no-such-package"] == "not installed, but required"
    assert facts["no-such-extra"] == "not installed (extra flash)"


def test_variables_that_matter_only(monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    monkeypatch.setenv("UNRELATED", "1")
    facts = variable_facts()
    assert facts["SLURM_JOB_ID"] == "4711" and "UNRELATED" not in facts


def test_a_run_is_described(run):
    facts = run_health.run_facts(run)
    assert facts["finished"] == "no" and facts["checkpoints"] == "step_00000002" and facts["steps not taken"] == 1
    assert "2 ranks" in facts["start 1 of 1"] and "from nothing" in facts["start 1 of 1"]
    assert facts["rank 1 (process 77 on node2)"].endswith("s ago at step 2, train.py:117")
    (run / "STOP").touch()
    (run / ".lock").write_text(json.dumps({"host": "node1", "pid": 5, "started": "today"}))
    facts = run_health.run_facts(run)
    assert facts["STOP"] == "asked for" and facts["held by"] == "process 5 on node1 (since today)"


def test_what_is_no_run(tmp_path):
    with pytest.raises(FileNotFoundError, match="no run's folder"):
        run_health.run_facts(tmp_path)
