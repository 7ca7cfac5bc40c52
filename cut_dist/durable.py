"""Files that survive a kill or a power cut: written whole, fsynced, and put in place by one rename."""

from __future__ import annotations

import errno
import os
from pathlib import Path


def write_file(path: Path, data: bytes) -> None:
    """Writes `data` to `path` and fsyncs it. Not atomic: for files inside a folder that is renamed later."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_file(path: Path, data: bytes) -> None:
    """Puts `data` at `path` so that a reader, after any crash too, sees all old bytes or all new."""
    temporary = path.with_name(path.name + ".tmp")
    write_file(temporary, data)
    os.replace(temporary, path)
    sync_folder(path.parent)


def sync_file(path: Path) -> None:
    """Fsyncs a file that somebody else has written and closed."""
    _fsync(path, os.O_RDONLY)


def sync_folder(path: Path) -> None:
    """Makes the names inside a folder durable (new files, renames, removals)."""
    try:
        _fsync(path, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        # Some network file systems can't fsync a folder; there a rename is as durable as the server makes it.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise


def _fsync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
