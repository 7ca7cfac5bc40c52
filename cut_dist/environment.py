"""What a bug report needs of the machine: versions, devices, memory, compilers, variables; secrets blotted out.

Each probe stands for itself: one that fails or takes too long says so in its own line, and the others go on. What could
hang or crash (PyTorch on a broken driver, nvidia-smi) runs in a process of its own.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
from packaging.requirements import Requirement

from cut_dist.cache import cache_root
from cut_dist.figure import processor
from cut_dist.lineage import PACKAGES, code_record, is_secret, redact
from cut_dist.throughput import GIB

Facts = dict[str, Any]

_TIMEOUT_S = 60
_VARIABLES = re.compile(
    r"^(CUT_DIST|CUDA|NVIDIA|ROCR|NCCL|TORCH|PYTORCH|TRITON|GLOO|DS_|HF_|HUGGING|TRANSFORMERS|WANDB|OMP|MKL|UCX|MV2|SLURM|"
    r"MASTER_|RANK$|WORLD_SIZE$|LOCAL_|PYTHON|VIRTUAL_ENV|CONDA_PREFIX|LD_|PATH$|TMPDIR|XDG_CACHE|https?_proxy|no_proxy)",
    re.IGNORECASE,
)
_IN_URL = re.compile(r"://[^/@\s]+@")  # https://user:password@host

_TORCH = """
import json, torch
facts = {"version": torch.__version__, "CUDA build": torch.version.cuda, "ROCm build": torch.version.hip}
facts["CUDA available"] = torch.cuda.is_available()
if torch.cuda.is_available():
    facts["NCCL"] = ".".join(map(str, torch.cuda.nccl.version()))
    facts["cuDNN"] = torch.backends.cudnn.version()
    for i in range(torch.cuda.device_count()):
        p = torch.cuda.get_device_properties(i)
        facts[f"GPU {i}"] = f"{p.name}, sm_{p.major}{p.minor}, {p.total_memory / 2**30:.0f} GiB"
facts["gloo"] = torch.distributed.is_gloo_available()
facts["threads"] = torch.get_num_threads()
print(json.dumps(facts))
"""
_DEEPSPEED = """
import json
from deepspeed.accelerator import get_accelerator
from deepspeed.git_version_info import installed_ops, version
facts = {"version": version, "accelerator": get_accelerator().device_name(),
         "communication": get_accelerator().communication_backend_name()}
built = sorted(name for name, there in installed_ops.items() if there)
facts["operations built on install"] = ", ".join(built) or "none: they are compiled on first use"
for name in ("CPUAdamBuilder", "AsyncIOBuilder", "ShareMemCommBuilder"):
    builder = get_accelerator().create_op_builder(name)
    facts[name.removesuffix("Builder")] = "none here" if builder is None else (
        "can be compiled" if builder.is_compatible(verbose=False) else "can't be compiled")
print(json.dumps(facts))
"""


def collect_environment() -> dict[str, Facts]:
    """Sections of facts by name, in the order to be shown; nothing secret in them."""
    probes: dict[str, Callable[[], Facts]] = {
        "code": code_facts,
        "system": system_facts,
        "memory and disk": storage_facts,
        "packages": package_facts,
        "PyTorch": lambda: _child(_TORCH),
        "DeepSpeed": lambda: _child(_DEEPSPEED),
        "NVIDIA": gpu_facts,
        "compilers": compiler_facts,
        "container and scheduler": container_facts,
        "accounts": account_facts,
        "variables": variable_facts,
    }
    with ThreadPoolExecutor(len(probes)) as pool:
        return dict(zip(probes, pool.map(guarded, probes.values())))


def guarded(probe: Callable[[], Facts]) -> Facts:
    """What a probe finds, blotted; a problem of its own is its only fact."""
    try:
        return _blotted(probe())
    except Exception as error:  # any: the rest of the report must come
        return _blotted({"probe failed": f"{type(error).__name__}: {error}".strip()[:500]})


def code_facts() -> Facts:
    record = code_record()
    differ = {False: "no", True: "yes", None: "unknown"}[record["git_dirty"]]
    return {"cut_dist": record["version"], "commit": record["git_commit"] or "unknown", "files differ from it": differ,
            "from": str(Path(__file__).resolve().parent)}  # fmt: skip


def system_facts() -> Facts:
    system = platform.freedesktop_os_release().get("PRETTY_NAME", "") if sys.platform == "linux" else ""
    return {
        "host": socket.gethostname(),
        "host resolves to": _resolved(socket.gethostname()),
        "system": f"{system or platform.system()}, kernel {platform.release()}, {platform.machine()}",
        "Python": f"{platform.python_version()} at {sys.executable}",
        "processor": f"{processor()}, {os.cpu_count()} cores, {len(os.sched_getaffinity(0))} for this process",
        "load": ", ".join(f"{load:.1f}" for load in os.getloadavg()),
        "interfaces": ", ".join(_interfaces()),
    }


def storage_facts() -> Facts:
    memory = psutil.virtual_memory()
    facts = {"memory": f"{memory.available / GIB:.1f} GiB free of {memory.total / GIB:.1f}"}
    places = {"/dev/shm": Path("/dev/shm"), "temporary files": Path(os.environ.get("TMPDIR", "/tmp"))}
    places |= {"cut_dist's cache": cache_root(), "Hugging Face's cache": _hf_home(), "here": Path.cwd()}
    for name, path in places.items():
        facts[name] = _room(path)
    left = len(list(Path("/dev/shm").glob("deepspeed_*")))
    return facts | ({"files left by DeepSpeed in /dev/shm": left} if left else {})


def package_facts() -> Facts:
    """Every requirement of this package with what is installed; where it is not installed itself, the main ones."""
    try:
        wanted = [Requirement(text) for text in metadata.requires("cut-dist") or ()]
    except metadata.PackageNotFoundError:
        wanted = [Requirement(name) for name in PACKAGES]
    facts: Facts = {}
    for requirement in wanted:
        extra = re.search(r"extra == ['\"](\w+)['\"]", str(requirement.marker or ""))
        try:
            version = metadata.version(requirement.name)
            fits = requirement.specifier.contains(version, prereleases=True)
            found = version if fits else f"{version}, but {requirement.specifier} is asked for"
        except metadata.PackageNotFoundError:
            found = f"not installed{f' (extra {extra[1]})' if extra else ', but required'}"
        facts.setdefault(requirement.name, found)
    return facts


def gpu_facts() -> Facts:
    if not shutil.which("nvidia-smi"):
        return {"nvidia-smi": "not found"}
    query = "index,name,memory.total,memory.used,driver_version,pstate"
    rows = _output(["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"]).splitlines()
    facts = {f"GPU {row.partition(',')[0]} (memory, used, driver)": row.partition(",")[2].strip() for row in rows}
    return facts | {"topology": "\n" + _output(["nvidia-smi", "topo", "-m"])}


def compiler_facts() -> Facts:
    ours = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"  # as compiled_ops does
    facts = {}
    for name in ("c++", "nvcc", "ninja"):
        path = shutil.which(name, path=ours)
        said = _output([path, "--version"]).splitlines() if path else []
        release = next((line for line in said if "release" in line), said[0] if said else "")
        facts[name] = f"{release} at {path}" if path else "not found"
    return facts | {"CUDA_HOME": os.environ.get("CUDA_HOME", "not set")}


def container_facts() -> Facts:
    files = {"Docker": "/.dockerenv", "Podman": "/run/.containerenv"}
    keys = {"Apptainer": "APPTAINER_CONTAINER", "Kubernetes": "KUBERNETES_SERVICE_HOST"}
    inside = [name for name, path in files.items() if Path(path).exists()]
    inside += [name for name, key in keys.items() if key in os.environ]
    slurm = "installed" if shutil.which("sbatch") else "not found"
    if "SLURM_JOB_ID" in os.environ:
        slurm = f"job {os.environ['SLURM_JOB_ID']} on {os.environ.get('SLURM_JOB_NODELIST')}"
    found = {name: shutil.which(name) or "not found" for name in ("ssh", "pdsh")}
    return {"container": ", ".join(inside) or "none seen", "SLURM": slurm, **found}


def account_facts() -> Facts:
    host, netrc = "api.wandb.ai", Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    wandb = "WANDB_API_KEY" if os.environ.get("WANDB_API_KEY") else None
    if not wandb and netrc.is_file() and host in netrc.read_text():
        wandb = str(netrc)
    token = Path(os.environ.get("HF_TOKEN_PATH") or _hf_home() / "token")
    hub = "HF_TOKEN" if os.environ.get("HF_TOKEN") else str(token) if token.is_file() else None
    return {"W&B": f"logged in by {wandb}" if wandb else "not logged in",
            "Hugging Face": f"logged in by {hub}" if hub else "not logged in"}  # fmt: skip


def variable_facts() -> Facts:
    return {name: value for name, value in sorted(os.environ.items()) if _VARIABLES.search(name)}


def _blotted(facts: Facts) -> Facts:
    hidden = {name: "***" if is_secret(name) and value else value for name, value in facts.items()}
    return {name: _IN_URL.sub("://***@", value) if isinstance(value, str) else value
            for name, value in redact(hidden).items()}  # fmt: skip


def _child(program: str) -> Facts:
    """What a Python program of its own process prints last, as JSON."""
    return json.loads(_output([sys.executable, "-c", program]).splitlines()[-1])


def _output(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, errors="replace")
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:]
        raise RuntimeError(f"{Path(command[0]).name} ended with {done.returncode}: {' '.join(last)}")
    return done.stdout.strip()


def _room(path: Path) -> str:
    try:
        usage = shutil.disk_usage(next(folder for folder in (path, *path.parents) if folder.exists()))
    except OSError as error:
        return str(error)
    return f"{usage.free / GIB:.1f} GiB free of {usage.total / GIB:.1f} at {path}"


def _hf_home() -> Path:
    return Path(os.environ.get("HF_HOME") or "~/.cache/huggingface").expanduser()


def _resolved(host: str) -> str:
    try:
        address = socket.gethostbyname(host)
    except OSError as error:
        return f"nothing ({error}): gloo needs GLOO_SOCKET_IFNAME then"
    loopback = " (loopback: other hosts can't use that; gloo needs GLOO_SOCKET_IFNAME then)"
    return address + (loopback if address.startswith("127.") else "")


def _interfaces() -> list[str]:
    up = psutil.net_if_stats()
    return [f"{name} {a.address}" for name, addresses in psutil.net_if_addrs().items() for a in addresses
            if a.family == socket.AF_INET and up[name].isup]  # fmt: skip
