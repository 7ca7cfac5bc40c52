"""The checkpoint protocol without an engine: commit, corruption, fall-back, retention, a full disk."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest

from cut_dist import checkpoint, durable, manifest
from cut_dist.checkpoint import CheckpointError, newest_valid, prune, tag_of, verify

SHARDS = ("engine/rank0_optim.pt", "engine/rank1_optim.pt", "rng_rank00000.pt")


def save(root: Path, step: int) -> Path:
    """What the trainer does, with two ranks' shards of equal size and different content."""
    stage = checkpoint.begin_stage(root)
    (stage / "engine").mkdir()
    for number, name in enumerate(SHARDS):
        (stage / name).write_bytes(bytes([step % 251, number]) * 500)
    (stage / "engine" / "empty.json").write_bytes(b"")
    files = {**checkpoint.seal_share(stage, 1, 2), **checkpoint.seal_share(stage, 0, 2)}
    return checkpoint.commit_stage(root, step, files=files, world_size=2)


def commit(root: Path, step: int) -> Path:
    """The stage as it is, sealed by a single rank."""
    files = checkpoint.seal_share(root / checkpoint.STAGE, 0, 1)
    return checkpoint.commit_stage(root, step, files=files, world_size=1)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with the checkpoints of steps 10, 20 and 30."""
    root = tmp_path / "checkpoints"
    for step in (10, 20, 30):
        save(root, step)
    return root


# ---- commit and read back


def test_commit_keeps_what_was_staged_and_says_so_in_the_manifest(tmp_path):
    root = tmp_path / "checkpoints"
    path = save(root, 20)
    read = manifest.read_manifest(path)
    assert path == root / "step_00000020" and verify(path) == []
    assert (read["step"], read["tag"], read["world_size"]) == (20, "step_00000020", 2)
    content = (path / SHARDS[1]).read_bytes()
    assert content == bytes([20, 1]) * 500
    assert read["files"][SHARDS[1]] == {"bytes": 1000, "sha256": hashlib.sha256(content).hexdigest()}
    assert set(read["files"]) == {*SHARDS, "engine/empty.json"}
    assert (root / "latest").read_text() == "step_00000020\n"
    assert sorted(p.name for p in root.iterdir()) == ["latest", "step_00000020"]


def test_hash_of_a_file_larger_than_the_buffer(tmp_path, monkeypatch):
    monkeypatch.setattr(manifest, "_HASH_BUFFER", 1000)
    data = os.urandom(3500)
    (tmp_path / "shard").write_bytes(data)
    assert manifest.file_sha256(tmp_path / "shard") == hashlib.sha256(data).hexdigest()


def test_every_file_and_folder_is_synced_before_the_rename_and_the_root_after_it(tmp_path, monkeypatch):
    events = []
    fsync, rename = os.fsync, os.rename

    def recording_fsync(descriptor):
        events.append(("fsync", os.fstat(descriptor).st_ino))
        fsync(descriptor)

    def recording_rename(source, target):
        events.append(("rename", Path(target).name))
        rename(source, target)

    monkeypatch.setattr(os, "fsync", recording_fsync)
    monkeypatch.setattr(os, "rename", recording_rename)
    path = save(tmp_path, 10)
    moment = events.index(("rename", "step_00000010"))
    before = {inode for kind, inode in events[:moment] if kind == "fsync"}
    inodes = {entry.stat().st_ino for entry in [path, *path.rglob("*")]}
    assert inodes <= before
    assert events[moment + 1] == ("fsync", tmp_path.stat().st_ino)


def test_tags_are_read_to_the_letter():
    assert tag_of(20) == "step_00000020" and checkpoint.step_of("step_00000020") == 20
    for name in ("step_20", "step_000000020", "step_0000002O", "step_00000020\n", " step_00000020", "step_٠٠٠٠٠٠٢٠",
                 "xstep_00000020", "step_00000020.bak", "Step_00000020", ""):  # fmt: skip
        assert checkpoint.step_of(name) is None, name
    for step in (-1, 10**8):
        with pytest.raises(ValueError, match="step"):
            tag_of(step)


def test_a_stage_is_refused_if_empty_foreign_or_holding_links(tmp_path):
    root = tmp_path / "checkpoints"
    (tmp_path / "secret").write_text("not the run's")
    checkpoint.begin_stage(root)
    with pytest.raises(CheckpointError, match="empty"):
        commit(root, 1)
    (checkpoint.begin_stage(root) / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(CheckpointError, match="not a plain file"):
        commit(root, 1)
    (checkpoint.begin_stage(root) / "MANIFEST.json").write_text("{}")
    with pytest.raises(CheckpointError, match="begin_stage must come before"):
        commit(root, 1)
    assert (tmp_path / "secret").read_text() == "not the run's"
    with pytest.raises(CheckpointError):
        checkpoint.commit_stage(tmp_path / "never_begun", 1, files={}, world_size=1)


DEEPSPEED_NAMES = {
    "engine/mp_rank_00_model_states.pt": 0,
    "engine/zero_pp_rank_0_mp_rank_00_optim_states.pt": 0,
    "engine/zero_pp_rank_1_mp_rank_00_model_states.pt": 1,
    "engine/bf16_zero_pp_rank_11_mp_rank_00_optim_states.pt": 11,
    "rng_rank00011.pt": 11,
    "rng_rank00012.pt": 0,  # of a rank that there is not: somebody must read it all the same
    "rank_5/zero_to_fp32.py": 0,
}


def test_each_rank_seals_what_bears_its_number_and_every_file_is_sealed_once(tmp_path):
    stage = checkpoint.begin_stage(tmp_path)
    for name in DEEPSPEED_NAMES:
        (stage / name).parent.mkdir(exist_ok=True)
        (stage / name).write_bytes(name.encode())
    shares = [checkpoint.seal_share(stage, rank, 12) for rank in range(12)]
    owners = {name: rank for rank, share in enumerate(shares) for name in share}
    assert owners == DEEPSPEED_NAMES
    assert sum(map(len, shares)) == len(DEEPSPEED_NAMES)


@pytest.mark.parametrize("spoil", ["missing", "more", "longer"])
def test_a_stage_that_differs_from_what_was_sealed_is_not_committed(root, spoil):
    stage = checkpoint.begin_stage(root)
    for rank in (0, 1):
        (stage / f"rng_rank0000{rank}.pt").write_bytes(b"state")
    files = {**checkpoint.seal_share(stage, 0, 2), **checkpoint.seal_share(stage, 1, 2)}
    if spoil == "missing":  # what another node wrote into a folder of its own
        (stage / "rng_rank00001.pt").unlink()
    elif spoil == "more":
        del files["rng_rank00001.pt"]
    else:
        (stage / "rng_rank00001.pt").write_bytes(b"state and more")
    with pytest.raises(CheckpointError, match="rng_rank00001.pt. All ranks need the same run.root"):
        checkpoint.commit_stage(root, 40, files=files, world_size=2)
    assert newest_valid(root) == (root / "step_00000030", [])


def test_a_valid_checkpoint_is_never_overwritten(root):
    before = (root / "step_00000030" / "MANIFEST.json").read_bytes()
    with pytest.raises(CheckpointError, match="committed already"):
        save(root, 30)
    assert (root / "step_00000030" / "MANIFEST.json").read_bytes() == before


def test_a_broken_checkpoint_makes_way_for_its_successor_and_is_pruned_when_old(root):
    (root / "step_00000030" / SHARDS[0]).write_bytes(b"broken")
    save(root, 30)
    assert newest_valid(root) == (root / "step_00000030", [])
    assert (root / "rejected_step_00000030" / SHARDS[0]).read_bytes() == b"broken"
    save(root, 40)
    assert prune(root, 2) == ["step_00000010", "step_00000020"]
    save(root, 50)
    assert prune(root, 2) == ["rejected_step_00000030", "step_00000030"]


def test_begin_stage_clears_what_a_kill_left(root):
    (root / ".stage" / "engine").mkdir(parents=True)
    (root / ".stage" / "engine" / "half").write_bytes(b"half")
    (root / ".trash_step_00000001").mkdir()
    stage = checkpoint.begin_stage(root)
    assert list(stage.iterdir()) == [] and not (root / ".trash_step_00000001").exists()
    checkpoint.abandon_stage(root)
    assert not stage.exists() and newest_valid(root)[0] == root / "step_00000030"


# ---- corruption: all found, right fall-back


def flip_bit(path: Path, _: Path) -> None:
    data = bytearray(path.read_bytes() or b"\0")
    data[len(data) // 2] ^= 0x10
    path.write_bytes(bytes(data))


def truncate(path: Path, _: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def grow(path: Path, _: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def empty(path: Path, _: Path) -> None:
    path.write_bytes(b"")


def delete(path: Path, _: Path) -> None:
    path.unlink()


def take_other_steps(path: Path, other: Path) -> None:
    path.write_bytes(other.read_bytes())


def replace_by_link(path: Path, other: Path) -> None:
    path.unlink()
    path.symlink_to(other)


@pytest.mark.parametrize("harm", [flip_bit, truncate, grow, empty, delete, take_other_steps, replace_by_link])
@pytest.mark.parametrize("name", [*SHARDS, "MANIFEST.json"])
def test_a_damaged_file_is_found_and_the_step_before_is_taken(root, name, harm):
    harm(root / "step_00000030" / name, root / "step_00000020" / name)
    assert verify(root / "step_00000030")
    path, reasons = newest_valid(root)
    assert path == root / "step_00000020"
    assert "step_00000030 was passed over" in reasons[0] and name in reasons[0] or name == "MANIFEST.json"
    assert "'step_00000030'; the newest valid checkpoint is step_00000020" in reasons[1]


def test_every_single_bit_of_a_manifest_counts(tmp_path):
    stage = checkpoint.begin_stage(tmp_path)
    (stage / "shard").write_bytes(b"x")
    path = commit(tmp_path, 7) / "MANIFEST.json"
    data = path.read_bytes()
    for position in range(len(data)):
        for bit in range(8):
            path.write_bytes(data[:position] + bytes([data[position] ^ (1 << bit)]) + data[position + 1 :])
            assert verify(path.parent), (position, bit)
    path.write_bytes(data)
    assert verify(path.parent) == []


def test_shards_of_two_ranks_swapped(root):
    first, second = (root / "step_00000030" / name for name in SHARDS[:2])
    first.rename(first.with_suffix(".tmp"))
    second.rename(first)
    first.with_suffix(".tmp").rename(second)
    assert verify(root / "step_00000030") == [f"{name} has changed since its commit" for name in SHARDS[:2]]
    assert newest_valid(root)[0] == root / "step_00000020"


def test_whole_steps_swapped_are_both_refused(root):
    a, b, spare = root / "step_00000030", root / "step_00000020", root / "spare"
    a.rename(spare)
    b.rename(a)
    spare.rename(b)
    path, reasons = newest_valid(root)
    assert path == root / "step_00000010"
    assert "the manifest is that of step_00000020" in reasons[0]


def test_files_that_were_not_committed_are_refused(root):
    (root / "step_00000030" / "engine" / "rank2_optim.pt").write_bytes(b"from elsewhere")
    problems = verify(root / "step_00000030")
    assert problems == ["engine/rank2_optim.pt is not in the manifest (move it out)"]
    (root / "step_00000030" / "engine" / "rank2_optim.pt").unlink()
    assert verify(root / "step_00000030") == []


def test_a_manifest_can_not_name_files_elsewhere(tmp_path, monkeypatch):
    (tmp_path / "outside").write_bytes(b"x")
    path = tmp_path / tag_of(1)
    path.mkdir()
    entry = {"bytes": 1, "sha256": hashlib.sha256(b"x").hexdigest()}
    files = {"../outside": entry, str(tmp_path / "outside"): entry}
    forged = {
        "format": 1,
        "tag": path.name,
        "step": 1,
        "world_size": 1,
        "versions": {},
        "files": files,
    }
    (path / "MANIFEST.json").write_bytes(manifest._render(forged))
    assert manifest.read_manifest(path)["step"] == 1
    monkeypatch.setattr(manifest, "file_sha256", lambda path: pytest.fail(f"{path} was opened"))
    assert len(verify(path)) == 2 and all("is missing" in problem for problem in verify(path))


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", "[" * 100_000, '{"sha256": "0"}', '{"format": 99}'])
def test_a_manifest_that_is_none(root, text):
    (root / "step_00000030" / "MANIFEST.json").write_text(text)
    assert newest_valid(root)[0] == root / "step_00000020"


def test_a_manifest_of_another_format_is_named(root):
    path = root / "step_00000030"
    body = manifest.read_manifest(path) | {"format": 2}
    del body["sha256"]
    (path / "MANIFEST.json").write_bytes(manifest._render(body))
    with pytest.raises(CheckpointError, match="format 2, and this version reads 1"):
        manifest.read_manifest(path)


def test_sizes_are_compared_before_anything_is_hashed(root, monkeypatch):
    truncate(root / "step_00000030" / SHARDS[0], root)
    monkeypatch.setattr(manifest, "file_sha256", lambda path: pytest.fail(f"{path} was hashed"))
    assert verify(root / "step_00000030") == [f"{SHARDS[0]} has 500 bytes instead of 1000"]


# ---- the pointer, and what is never done silently


@pytest.mark.parametrize(
    "content",
    [
        b"",
        None,
        b"\xff\xfe garbage\0",
        b"step_00000099\n",
        b"../../etc/passwd",
        b"step_00000010\n",
        b"x" * 10_000,
    ],
    ids=["empty", "missing", "garbage", "deleted", "outside", "older", "long"],
)
def test_latest_is_only_a_hint(root, content):
    (root / "latest").unlink()
    if content is not None:
        (root / "latest").write_bytes(content)
    path, reasons = newest_valid(root)
    assert path == root / "step_00000030"
    assert len(reasons) == 1 and "the newest valid checkpoint is step_00000030" in reasons[0]


def test_latest_may_be_a_folder_or_a_dangling_link(root):
    (root / "latest").unlink()
    (root / "latest").mkdir()
    assert newest_valid(root)[0] == root / "step_00000030"
    (root / "latest").rmdir()
    (root / "latest").symlink_to(root / "nowhere")
    assert newest_valid(root)[0] == root / "step_00000030"


def test_a_new_run_has_no_checkpoint(tmp_path):
    assert newest_valid(tmp_path / "checkpoints") == (None, [])
    checkpoint.begin_stage(tmp_path / "checkpoints")  # the first save was killed before its commit
    assert newest_valid(tmp_path / "checkpoints") == (None, [])


def test_no_valid_checkpoint_among_some_is_an_error_that_names_each(root):
    for step in (10, 20, 30):
        (root / tag_of(step) / SHARDS[0]).unlink()
    with pytest.raises(CheckpointError) as caught:
        newest_valid(root)
    for part in ("step_00000010", "step_00000020", "step_00000030", SHARDS[0], "run.resume=never"):
        assert part in str(caught.value)


def test_lost_or_foreign_checkpoints_are_an_error_too(tmp_path):
    root = tmp_path / "checkpoints"
    root.mkdir()
    (root / "latest").write_text("step_00000030\n")
    with pytest.raises(CheckpointError, match="latest"):
        newest_valid(root)
    (root / "latest").unlink()
    (root / "global_step100").mkdir()
    with pytest.raises(CheckpointError, match="global_step100"):
        newest_valid(root)
    (root / "global_step100").rename(root / "step_00000100")
    with pytest.raises(
        CheckpointError, match=r"step_00000100 was passed over: .*MANIFEST.json can't be read"
    ):
        newest_valid(root)


def test_another_number_of_ranks_is_named(root):
    checkpoint.require_world_size(root / "step_00000030", 2)
    with pytest.raises(CheckpointError, match=r"written by 2 ranks and this run has 4.*run.resume=never"):
        checkpoint.require_world_size(root / "step_00000030", 4)


# ---- retention


def test_prune_keeps_the_newest_valid_ones(root):
    save(root, 40)
    assert prune(root, 3) == ["step_00000010"]
    assert prune(root, 2) == ["step_00000020"]
    assert prune(root, 2) == []
    assert sorted(p.name for p in root.iterdir()) == ["latest", "step_00000030", "step_00000040"]


def test_prune_does_not_count_broken_or_half_written_ones(root):
    save(root, 40)
    (root / "step_00000040" / SHARDS[0]).unlink()
    flip_bit(root / "step_00000030" / SHARDS[1], root)
    os.utime(root / "step_00000030" / SHARDS[1], ns=(1, 1))  # the kernel's own clock may not have ticked yet
    (root / "step_00000050").mkdir()
    (root / ".stage").mkdir()
    assert prune(root, 2) == []
    assert [verify(root / tag_of(step)) for step in (10, 20)] == [[], []]
    save(root, 60)
    assert prune(root, 2) == ["step_00000010"]  # 60 and 20 are good; the broken ones are newer than 20


@pytest.fixture
def hashed(monkeypatch) -> list[str]:
    """The checkpoints whose files are hashed, one entry a file."""
    tags = []
    real = manifest.file_sha256

    def recording(path):
        tags.append(next(part for part in path.parts if part == ".stage" or part.startswith("step_")))
        return real(path)

    monkeypatch.setattr(manifest, "file_sha256", recording)
    return tags


def test_prune_reads_nothing_back_that_this_process_has_hashed(root, hashed):
    for step in (40, 50):
        save(root, step)
        assert prune(root, 2)
    assert hashed == [".stage"] * 8


def test_after_a_restart_each_checkpoint_is_hashed_once(root, hashed, monkeypatch):
    monkeypatch.setattr(checkpoint, "_hashed", {})
    assert newest_valid(root)[0] == root / "step_00000030"
    assert hashed == ["step_00000030"] * 4
    assert prune(root, 2) == ["step_00000010"]
    assert hashed == ["step_00000030"] * 4 + ["step_00000020"] * 4
    assert prune(root, 2) == [] and len(hashed) == 8
    newest_valid(root)
    assert hashed[8:] == ["step_00000030"] * 4  # a start never relies on what was hashed before


@pytest.mark.parametrize("harm", [flip_bit, truncate, grow, empty, delete, take_other_steps, replace_by_link])
@pytest.mark.parametrize("name", [*SHARDS, "MANIFEST.json"])
def test_prune_finds_what_was_damaged_after_its_commit(root, name, harm):
    path = root / "step_00000030" / name
    harm(path, root / "step_00000020" / name)
    if path.is_file():
        os.utime(path, ns=(1, 1), follow_symlinks=False)
    assert prune(root, 2) == [] and verify(root / "step_00000010") == []


def test_prune_finds_a_foreign_file_and_a_swapped_step(root):
    (root / "step_00000030" / "more.pt").write_bytes(b"")
    assert prune(root, 2) == []
    (root / "step_00000030" / "more.pt").unlink()
    (root / "step_00000010").rename(root / "spare")
    shutil.rmtree(root / "step_00000030")
    (root / "spare").rename(root / "step_00000030")
    save(root, 40)
    assert prune(root, 2) == []


def test_prune_refuses_to_keep_fewer_than_two(root):
    with pytest.raises(ValueError, match="at least 2"):
        prune(root, 1)


def test_prune_survives_what_can_not_be_removed(root, monkeypatch, caplog):
    save(root, 40)
    rename = os.rename

    def refuse(source, target):
        if Path(source).name == "step_00000010":
            raise PermissionError(errno.EPERM, "not yours")
        rename(source, target)

    monkeypatch.setattr(os, "rename", refuse)
    assert prune(root, 2) == ["step_00000020"]
    assert "step_00000010 could not be removed" in caplog.text


# ---- a full disk


def test_free_space_is_asked_for_before(tmp_path):
    checkpoint.require_free_space(tmp_path / "not" / "yet" / "there", 1)
    with pytest.raises(CheckpointError, match=r"needs \d+\.\d\d GiB but .* has \d+\.\d\d GiB free"):
        checkpoint.require_free_space(tmp_path, 2**60)


def test_a_full_disk_at_any_write_leaves_the_earlier_checkpoints(root, monkeypatch):
    real_write = os.write
    for failing in range(20):
        writes = iter(range(1000))

        def write(descriptor, data, failing=failing, writes=writes):
            if next(writes) == failing:
                real_write(descriptor, data[: len(data) // 2])
                raise OSError(errno.ENOSPC, "No space left on device")
            return real_write(descriptor, data)

        monkeypatch.setattr(durable.os, "write", write)
        try:
            path = save(root, 40)
        except CheckpointError as error:
            assert "step_00000040 could not be committed" in str(error) and "GiB are free" in str(error)
            assert newest_valid(root) == (root / "step_00000030", [])
            checkpoint.abandon_stage(root)
        else:
            # Either nothing failed or only the hint did: the checkpoint stands.
            assert newest_valid(root)[0] == path
            if next(writes) <= failing:
                break
            shutil.rmtree(path)
            (root / "latest").write_text("step_00000030\n")
    else:
        pytest.fail("the loop never reached the end of the writes")
    assert failing >= 2
    assert not (root / ".stage").exists()


def test_a_full_disk_while_sealing_is_the_callers_to_hear(root, monkeypatch):
    def full(path):
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    monkeypatch.setattr(durable, "sync_file", full)
    with pytest.raises(OSError, match="quota"):
        save(root, 40)
    monkeypatch.undo()
    assert newest_valid(root) == (root / "step_00000030", [])
    assert save(root, 40) == newest_valid(root)[0]


def test_no_pickle_here():
    for module in (checkpoint, manifest, durable):
        source = Path(module.__file__).read_text()
        assert "import pickle" not in source and "torch" not in source


def test_manifest_is_plain_json(root):
    text = (root / "step_00000030" / "MANIFEST.json").read_text()
    assert json.loads(text)["step"] == 30 and text.endswith("}\n")
