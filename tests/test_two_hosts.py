"""`deepspeed --hostfile` on two hosts: one host's losses, a cut link, a restart; and a rank that hangs."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from two_hosts import NotPermitted, TwoHosts

from cut_dist import checkpoint
from cut_dist.heartbeat import read_beats
from cut_dist.metrics import read_metrics

pytestmark = pytest.mark.distributed

STEPS = 60
TIMEOUT_MINUTES = 0.3  # longer than the ranks' start-ups differ by on a busy machine


def losses(folder: Path) -> list[str]:
    """The loss of each step, bit for bit."""
    return [row["loss"].hex() for row in read_metrics(folder / "metrics.jsonl") if row["kind"] == "train"]


def job(root: Path, runs: Path, name: str, *overrides: str) -> list[str]:
    return [
        str(root / "launch/train.py"), "+experiment=smoke", f"run.root={runs}", f"run.name={name}", "run.export=false",
        f"train.max_steps={STEPS}", "eval.at_start=false", "eval.at_end=false",
        # the tiny model's weights would all stay whole below the usual threshold
        "deepspeed.zero_optimization.stage3_param_persistence_threshold=0", *overrides,
    ]  # fmt: skip


def one_host(arguments: list[str], port: int) -> subprocess.Popen:
    """`deepspeed` with two ranks on this machine."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.Popen(
        ["deepspeed", "--num_gpus", "2", "--master_port", str(port), *arguments], text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={**os.environ, "OMP_NUM_THREADS": "1", "PATH": path},
    )  # fmt: skip


def output_of(process: subprocess.Popen, timeout: float) -> str:
    """What it has printed once it has ended; at the timeout it is killed and the test fails."""
    try:
        return process.communicate(timeout=timeout)[0]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise AssertionError(f"not ended in {timeout} s:\n{process.communicate()[0][-5000:]}") from None


def runs(pid: int) -> bool:
    """Whether a process is more than an entry that nobody has collected yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_for_step(process: subprocess.Popen, folder: Path, step: int) -> None:
    path, deadline = folder / "metrics.jsonl", time.monotonic() + 120
    while not path.exists() or path.read_text().count("\n") < step:
        if process.poll() is not None or time.monotonic() > deadline:
            raise AssertionError(f"step {step} was not reached:\n{output_of(process, 1)[-5000:]}")
        time.sleep(0.02)


@pytest.fixture(scope="module")
def hosts(root, tmp_path_factory):
    folder = tmp_path_factory.mktemp("two_hosts")
    try:
        with TwoHosts(folder) as hosts:
            # the launcher passes on neither; without the first, two ranks would take all cores each
            (folder / ".deepspeed_env").write_text("OMP_NUM_THREADS=1\nHF_HUB_OFFLINE=1\n")
            yield hosts
    except NotPermitted as why:
        pytest.skip(str(why))


@pytest.fixture(scope="module")
def straight(root, hosts) -> list[str]:
    """The losses of two ranks on one host, never interrupted."""
    port = 31000 + os.getpid() % 500
    process = one_host(job(root, hosts.folder / "runs", "one_host"), port)
    output = output_of(process, 200)
    assert process.returncode == 0, output[-5000:]
    assert not list(Path("/dev/shm").glob(f"deepspeed_*{port}_*"))
    return losses(hosts.folder / "runs/smoke/one_host")


def test_two_hosts_have_the_losses_of_one(root, hosts, straight):
    process = hosts.deepspeed(job(root, hosts.folder / "runs", "two_hosts"))
    output = output_of(process, 200)
    assert process.returncode == 0, output[-5000:]
    assert "node1: " in output and "ranks: 2" in output and hosts.bytes_sent("node2") > 2**20
    assert len(straight) == STEPS and losses(hosts.folder / "runs/smoke/two_hosts") == straight
    assert not hosts.processes()


def test_a_cut_link_ends_all_with_a_sentence_and_the_same_command_continues(root, hosts, straight):
    folder = hosts.folder / "runs/smoke/cut"
    command = job(root, hosts.folder / "runs", "cut", f"run.timeout_minutes={TIMEOUT_MINUTES}")
    process = hosts.deepspeed(command)
    wait_for_step(process, folder, 12)
    hosts.cut_link()
    # beside the timeout: 5 s in which rank 1 lets rank 0 speak, and what the launchers take to notice on a busy machine
    output = output_of(process, 60 * TIMEOUT_MINUTES + 60)
    assert process.returncode == 1
    assert not hosts.processes()
    for rank, prefix in enumerate(("node1: error: After", r"node2: error: \[rank 1\] After")):
        said = re.search(rf"{prefix} step (\d+) (.*)", output)
        assert said, output[-5000:]
        assert "look at the network between node1, node2" in said[2] and "the same command continues" in said[2]
        assert re.search(r"PyTorch's words, at \S+\.py:\d+: .*Timed out", said[2])
        assert int(said[1]) == read_beats(folder)[rank].step
    assert "Traceback" not in output
    done = len(losses(folder))
    assert losses(folder) == straight[:done] and done < STEPS

    newest, _ = checkpoint.newest_valid(folder / "checkpoints")
    saved = checkpoint.read_manifest(newest)["step"]
    # checkpoint.every of the smoke experiment; where the cut met the ranks at a save, that one came to nothing
    assert saved in (done // 5 * 5, (done - 1) // 5 * 5)

    hosts.mend_link()
    process = hosts.deepspeed(command)
    output = output_of(process, 200)
    assert process.returncode == 0, output[-5000:]
    assert f"after step {saved}" in output
    assert losses(folder) == straight
    assert not (folder / "ranks").exists()


def test_a_rank_that_hangs_is_named_and_the_job_ends(root, tmp_path):
    port = 31500 + os.getpid() % 500
    folder = tmp_path / "smoke/hangs"
    process = one_host(job(root, tmp_path, "hangs", f"run.timeout_minutes={TIMEOUT_MINUTES}"), port)
    try:
        wait_for_step(process, folder, 3)
        pid = json.loads((folder / "ranks/00001.json").read_text())["pid"]
        os.kill(pid, signal.SIGSTOP)
        output = output_of(process, 150)
    finally:
        process.kill()
    assert process.returncode != 0
    assert re.search(rf"error: After step \d+ nothing is heard from rank 1 \(process {pid} on .*\) for \d+ s", output)
    deadline = time.monotonic() + 10
    while runs(pid):  # the launcher kills it last of all
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert not list(Path("/dev/shm").glob(f"deepspeed_*{port}_*"))
    shutil.rmtree(folder)
