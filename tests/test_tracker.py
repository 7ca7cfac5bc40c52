"""Which tracker a configuration starts, and what it costs to have none."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cut_dist import tracker
from cut_dist.config import ConfigError, TrackerConfig
from cut_dist.tracker import TrackedRun, make_tracker


def test_none_does_nothing_and_nothing_heavy_is_imported_early(tmp_path):
    code = (
        "import sys; from pathlib import Path; from cut_dist import tracker; from cut_dist.config import TrackerConfig;"
        "run = tracker.make_tracker(TrackerConfig(name='none'), tracker.TrackedRun(Path(sys.argv[1]), {}, {}));"
        "run.log({}, 1); run.log_table('x', [{}], 1); run.log_model(Path()); run.finish();"
        "assert not {'wandb', 'tensorboard', 'torch'} & set(sys.modules)"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(tracker.__file__).parent.parent)}
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, env=environment)
    assert list(tmp_path.iterdir()) == []


def test_tensorboard_that_is_not_installed_is_said_with_the_remedy(tmp_path, monkeypatch):
    real = importlib.util.find_spec
    absent = lambda name, *rest: None if name == "tensorboard" else real(name, *rest)  # noqa: E731
    monkeypatch.setattr(importlib.util, "find_spec", absent)
    with pytest.raises(ConfigError, match="pip install tensorboard, or choose tracker=wandb or tracker=none"):
        make_tracker(TrackerConfig(name="tensorboard"), TrackedRun(tmp_path, {}, {}))
    assert list(tmp_path.iterdir()) == []
