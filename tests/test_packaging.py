"""What is installed and what is found: `kernels/` and `conf/` inside the package, never as top-level packages."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def run_python(code: str, cwd: Path, *path: Path) -> str:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))}
    done = subprocess.run([sys.executable, "-c", code], cwd=cwd, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_no_top_level_packages():
    """Either would be imported under a bare name that belongs to others: transformers probes for `kernels`."""
    for folder in ("kernels", "tests", "conf", "launch"):
        assert not (ROOT / folder / "__init__.py").exists(), folder
    assert not (ROOT / "tests" / "kernels").exists()


def test_hugging_faces_kernels_and_ours_live_together(tmp_path):
    """A package named `kernels` that is installed is found as itself, with the checkout before it on the path."""
    theirs = tmp_path / "kernels" / "__init__.py"
    theirs.parent.mkdir()
    theirs.write_text("__version__ = '0.0.1'\n")  # transformers imports it for its version, and finds it too old
    code = (
        "from transformers import LlamaForCausalLM\n"
        "import kernels, cut_dist.kernels.cut_loss as ours\n"
        "print(kernels.__file__); print(ours.__name__); print(ours.__file__)\n"
    )
    lines = run_python(code, ROOT, ROOT, tmp_path).splitlines()
    assert lines == [str(theirs), "cut_dist.kernels.cut_loss", str(ROOT / "kernels" / "cut_loss.py")]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> zipfile.ZipFile:
    """Built from a copy, so that no build/ or egg-info appears in the checkout."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for path in ROOT.iterdir():
        if path.name in {"cut_dist", "conf", "kernels", "launch", "tests"}:
            shutil.copytree(path, source / path.name, ignore=shutil.ignore_patterns("__pycache__"))
        elif path.is_file():
            shutil.copy(path, source)
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", out]
    done = subprocess.run([*build, source], capture_output=True, text=True, timeout=300, cwd=out)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    [path] = out.glob("cut_dist-*.whl")
    return zipfile.ZipFile(path)


def test_wheel_holds_the_whole_package_and_nothing_else(wheel):
    names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    wanted = {path.relative_to(ROOT).as_posix() for path in (ROOT / "cut_dist").rglob("*.py")}
    wanted |= {path.relative_to(ROOT).as_posix() for path in (ROOT / "cut_dist" / "assets").rglob("*.*")}
    for folder, pattern in (("kernels", "*.py"), ("conf", "*.yaml")):
        found = {f"cut_dist/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / folder).rglob(pattern)}
        assert found, folder
        wanted |= found
    assert names == wanted


def test_wheel_metadata(wheel):
    [name] = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    metadata = Parser().parsestr(wheel.read(name).decode("utf-8"))
    assert metadata["Name"] == "cut-dist"
    assert metadata["Requires-Python"] == ">=3.10"
    assert {"flash", "test", "eval", "serve"} <= set(metadata.get_all("Provides-Extra"))
    required = [line for line in metadata.get_all("Requires-Dist") if "extra ==" not in line]
    assert any(line.startswith("deepspeed>=0.19.8") for line in required)
    assert not any(line.startswith(("omegaconf", "flash")) for line in required)
    assert any(name.endswith("LICENSE") for name in wheel.namelist())


def test_wheel_works_away_from_the_checkout(wheel, tmp_path):
    site = tmp_path / "site"
    wheel.extractall(site)
    code = (
        "import cut_dist.kernels.cut_loss as ours\n"
        "from cut_dist.config_compose import conf_dir\n"
        "from cut_dist.kernels.fused_linear_cut import fused_linear_cut\n"
        "print(ours.__file__); print(conf_dir())\n"
    )
    kernels, conf = run_python(code, tmp_path, site).splitlines()[-2:]
    assert kernels == str(site / "cut_dist" / "kernels" / "cut_loss.py")
    assert conf == str(site / "cut_dist" / "conf")


def test_make_and_ci_name_the_two_commands():
    listed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for target in ("install", "quickstart", "smoke", "test", "lint", "clean"):
        assert f"make {target} " in listed
    plan = subprocess.run(
        ["make", "-n", "quickstart", "VENV=nowhere"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert "/deepspeed launch/train.py +experiment=quickstart" in plan
    ci = ROOT / ".ci" / "run"
    assert os.access(ci, os.X_OK) and "make test" in ci.read_text()
