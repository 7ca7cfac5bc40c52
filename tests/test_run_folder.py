"""The run's folder: hostile names, the lock of a live, dead or foreign holder, the comparison of configurations."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import yaml

from cut_dist import run_folder
from cut_dist.run_folder import RunFolderError, RunLock, check_same_config, create_run_folder, write_config

HOSTILE = [
    "", ".", "..", "../x", "a/b", "/etc/x", "a\\b/..", "a\0b", "a\nb", "a\n", "\n", "\ta", " a", "a ", "a b", "a" * 65,
    "a" * 300, "a.", ".hidden", "..x", "x..", "é", "а", "Ⅷ", "a:b", "a*b", "~", "$HOME", "a;b", "a'b", "%2e%2e",
    "\u202ea", "a\u200bb", "-x", "-",
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_refused_and_nothing_is_made(tmp_path, name):
    root = tmp_path / "runs"
    for experiment, run in ((name, "default"), ("quickstart", name)):
        with pytest.raises(RunFolderError, match="is no folder's name"):
            create_run_folder(root, experiment, run)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name", ["default", "a", "A-b_c.9", "lam-1.2_alpha-0.5_1f2e3d", "_x", "x-", "a" * 64, "a..b"]
)
def test_ordinary_names(tmp_path, name):
    folder = create_run_folder(tmp_path / "runs", "quickstart", name)
    assert folder == (tmp_path / "runs" / "quickstart" / name).resolve() and folder.is_dir()
    assert create_run_folder(tmp_path / "runs", "quickstart", name) == folder


def test_links_out_of_the_root_are_refused(tmp_path):
    root, outside = tmp_path / "runs", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    (root / "linked").symlink_to(outside)
    with pytest.raises(RunFolderError, match="is a link out of"):
        create_run_folder(root, "linked", "default")
    (root / "plain").mkdir()
    (root / "plain" / "run").symlink_to(outside)
    with pytest.raises(RunFolderError, match="is a link out of"):
        create_run_folder(root, "plain", "run")
    (root / "dangling").symlink_to(tmp_path / "not_there")
    with pytest.raises(RunFolderError, match="is a link out of"):
        create_run_folder(root, "dangling", "run")
    assert list(outside.iterdir()) == [] and not (tmp_path / "not_there").exists()


def test_a_root_that_cannot_be_made_is_named_with_its_key(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RunFolderError, match=r"run\.root=.*file/runs: .* can't be made \(Not a directory\)"):
        create_run_folder(tmp_path / "file" / "runs", "quickstart", "default")


def test_the_root_itself_may_be_a_link(tmp_path):
    (tmp_path / "big_disk").mkdir()
    (tmp_path / "runs").symlink_to(tmp_path / "big_disk")
    assert create_run_folder(tmp_path / "runs", "a", "b") == (tmp_path / "big_disk" / "a" / "b").resolve()


# ---- the lock


def start_holder(folder: Path) -> subprocess.Popen:
    code = """
        import sys, time
        from pathlib import Path
        from cut_dist.run_folder import RunLock
        with RunLock(Path(sys.argv[1])):
            print("held", flush=True)
            time.sleep(60)
    """
    environment = os.environ | {"PYTHONPATH": str(Path(run_folder.__file__).parent.parent)}
    command = [sys.executable, "-c", textwrap.dedent(code), str(folder)]
    holder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert holder.stdout.readline() == "held\n"
    return holder


def test_a_live_holder_is_named_and_a_killed_one_is_followed(tmp_path, caplog):
    holder = start_holder(tmp_path)
    try:
        for _ in range(10):
            with pytest.raises(
                RunFolderError, match=f"is in use by process {holder.pid} on .*STOP.*run.name"
            ):
                RunLock(tmp_path).acquire()
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    with RunLock(tmp_path) as lock:
        assert f"took over {tmp_path} from process {holder.pid} on" in caplog.text
        assert f"process {os.getpid()} on" in run_folder._holder(lock._descriptor)


def test_a_released_lock_is_taken_without_a_word(tmp_path, caplog):
    with RunLock(tmp_path), pytest.raises(RunFolderError, match="is in use by process"):
        RunLock(tmp_path).acquire()
    with RunLock(tmp_path):
        assert caplog.text == ""


def test_the_lock_is_released_on_an_exception_and_twice_is_harmless(tmp_path):
    lock = RunLock(tmp_path)
    with pytest.raises(KeyError), lock:
        raise KeyError
    lock.release()
    RunLock(tmp_path).acquire().release()


def test_a_lock_file_of_garbage_does_not_matter(tmp_path, caplog):
    (tmp_path / ".lock").write_bytes(b"\xff\0 not json")
    with RunLock(tmp_path):
        assert caplog.text == ""


def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch):
    def flock(descriptor, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(RunFolderError, match="No locks available.*where flock works"):
        RunLock(tmp_path).acquire()


def test_programs_that_the_holder_starts_do_not_keep_the_lock(tmp_path):
    with RunLock(tmp_path):
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(30)"], close_fds=False)
    try:
        time.sleep(0.1)
        RunLock(tmp_path).acquire().release()
    finally:
        child.kill()
        child.wait()


# ---- the configuration


IDENTITY = {"model": {"name_or_path": "tiny"}, "objective": {"lam": 1.1, "alpha": 1.0}, "betas": (0.9, 0.95)}


def test_the_same_configuration_continues(tmp_path):
    check_same_config(tmp_path, IDENTITY)
    write_config(tmp_path, {"run": {"name": "ä"}, **IDENTITY, "betas": [0.9, 0.95]}, IDENTITY)
    check_same_config(tmp_path, IDENTITY | {"betas": [0.9, 0.95]})
    assert yaml.safe_load((tmp_path / "config.yaml").read_text())["objective"] == {"lam": 1.1, "alpha": 1.0}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.yaml", "identity.json"]


def test_each_key_that_differs_is_named_old_to_new(tmp_path):
    write_config(tmp_path, {}, IDENTITY)
    changed = {
        "model": {"name_or_path": None},
        "objective": {"lam": 1.2, "alpha": 1.0},
        "betas": [0.9, 0.95],
        "seed": 1,
    }
    with pytest.raises(RunFolderError) as caught:
        check_same_config(tmp_path, changed)
    lines = str(caught.value).splitlines()
    assert lines[1:4] == [
        '  model.name_or_path: "tiny" → null',
        "  objective.lam: 1.1 → 1.2",
        "  seed: (absent) → 1",
    ]
    assert "run.name" in lines[4] and "run.resume=never" in lines[4] and len(lines) == 5


def test_an_integer_is_not_a_float_and_none_is_not_absent(tmp_path):
    write_config(tmp_path, {}, {"a": None, "b": 1})
    for other in ({"b": 1}, {"a": None, "b": True}, {"a": None, "b": "1"}):
        with pytest.raises(RunFolderError):
            check_same_config(tmp_path, other)


def test_a_folder_that_can_not_be_compared_is_refused(tmp_path):
    (tmp_path / "config.yaml").write_text("a: 1\n")
    with pytest.raises(RunFolderError, match="identity.json is missing"):
        check_same_config(tmp_path, {})
    (tmp_path / "identity.json").write_text("{")
    with pytest.raises(RunFolderError, match="damaged"):
        check_same_config(tmp_path, {})


def test_a_finished_run_says_so(tmp_path):
    assert run_folder.read_finished(tmp_path) is None
    run_folder.mark_finished(tmp_path, {"steps": 40, "model": "model"})
    finished = run_folder.read_finished(tmp_path)
    assert finished["steps"] == 40 and finished["finished"].endswith("+00:00")
