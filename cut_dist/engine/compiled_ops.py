"""DeepSpeed's operations in C++, compiled on their first use: one process at a time, and no lock outlives its owner.

PyTorch marks a compilation by a file named `lock`, which a killed process leaves behind: every later run would wait for
it without a word and for ever. Here the operations have a folder of their own, under a lock that the system drops with
its process; whoever holds it knows that a `lock` found in the folder is a dead one's.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

import torch
from deepspeed.accelerator import get_accelerator
from deepspeed.git_version_info import installed_ops
from filelock import FileLock

from cut_dist.cache import cache_root

log = logging.getLogger(__name__)

_VARIABLE = "TORCH_EXTENSIONS_DIR"  # PyTorch's: where compiled extensions lie


def load_op(builder_name: str) -> None:
    """Compile and load an operation, so that DeepSpeed finds it loaded; nothing where this accelerator has none,
    or where DeepSpeed was installed with it.

    Where $TORCH_EXTENSIONS_DIR is set, it is used as it is: other programs may be compiling there.

    Args:
        builder_name: DeepSpeed's, such as "CPUAdamBuilder".

    Raises:
        RuntimeError: it can't be compiled here; from DeepSpeed or PyTorch, with the compiler's output.
    """
    builder = get_accelerator().create_op_builder(builder_name)
    if builder is None or installed_ops.get(builder.name) or not builder.is_compatible():
        return
    own = _own_folder()
    folder = Path(os.environ.get(_VARIABLE) or own)
    folder.mkdir(parents=True, exist_ok=True)
    os.environ[_VARIABLE] = str(folder)
    _put_ninja_first()
    if not (folder / builder.name / f"{builder.name}.so").exists():
        log.info("compiling DeepSpeed's %s in %s: once, about a minute", builder.name, folder)
    with FileLock(folder / "cut_dist.lock"):
        if folder == own:
            for left_behind in folder.glob("*/lock"):
                left_behind.unlink()
        builder.load(verbose=False)


def _put_ninja_first() -> None:
    """Let PyTorch, which calls `ninja` by name, find this environment's.

    A command that comes by ssh has a PATH without it. The system's ninja, where there is one, is mostly of another
    version: it can't read this one's log and compiles everything anew, and so does this one after it.
    """
    ours, path = str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)
    if path.split(os.pathsep)[0] != ours:
        os.environ["PATH"] = f"{ours}{os.pathsep}{path}"


def _own_folder() -> Path:
    version = f"py{sys.version_info.major}{sys.version_info.minor}-torch{torch.__version__}"
    return cache_root() / "torch_extensions" / version
