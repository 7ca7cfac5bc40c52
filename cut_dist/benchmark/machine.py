"""What numbers were measured on, without names of hosts, users or folders."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from typing import Any

import torch

from cut_dist.figure import processor
from cut_dist.lineage import code_record, package_versions

PEERS = ("liger-kernel", "cut-cross-entropy", "trl")


def describe(device: torch.device) -> dict[str, Any]:
    """Processor, accelerator, code and packages."""
    described = {
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_before": round(os.getloadavg()[0], 2),  # of the last minute: on a quiet machine well below 1
        "system": platform.system(),
        "python": platform.python_version(),
        "code": code_record(),
        "packages": package_versions() | {name: metadata.version(name) for name in PEERS if _installed(name)},
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        described["gpu"] = {"name": properties.name, "bytes": properties.total_memory, "cuda": torch.version.cuda}
    return described


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True
