"""A sweep's folder without any training, written with what writes real ones."""

from __future__ import annotations

import itertools
import json
import math
import shutil
from pathlib import Path

from cut_dist.config_compose import compose_config
from cut_dist.lineage import write_lineage
from cut_dist.metrics import MetricsLog
from cut_dist.run_folder import mark_finished, write_config
from cut_dist.run_identity import identity

COUNTS = {"train": 24, "heldout": 4}
SECONDS, TOKENS = 0.5, 600


def write_sweep(folder: Path, swept: dict[str, list[str]], name: str = "paper") -> Path:
    """sweep.json for all combinations of the swept values, no job begun."""
    jobs = []
    for index, values in enumerate(itertools.product(*swept.values())):
        overrides = dict(zip(swept, values))
        named = "_".join(sorted(f"{key.rpartition('.')[2]}-{value}" for key, value in overrides.items()))
        jobs.append({"index": index, "name": named, "overrides": overrides})
    folder.mkdir(parents=True)
    command = ["launch/sweep.py", "+experiment=smoke", *(f"{key}={','.join(swept[key])}" for key in swept)]
    content = {"name": name, "command": command, "swept": swept, "jobs": jobs}
    (folder / "sweep.json").write_text(json.dumps(content))
    return folder


def jobs_of(folder: Path) -> list[dict]:
    return json.loads((folder / "sweep.json").read_text())["jobs"]


def _write_start(run: Path) -> None:
    """What a run writes at its start; slow, so that jobs after the first of a sweep copy the first's."""
    first = next((path.parent for path in sorted(run.parent.glob("*/lineage.json"))), None)
    if first:
        for name in ("lineage.json", "identity.json", "config.yaml"):
            shutil.copy(first / name, run)
        return
    write_config(run, {}, identity(compose_config("train", ["+experiment=smoke"])))
    data = {"path": "triplets.jsonl", "content_hash": "0ebdb4b69495" * 5, "counts": COUNTS}
    write_lineage(run, model={"name": "random_init"}, data=data, world_size=2, argv=["train.py"])


def write_job(
    folder: Path, job: dict, final: dict[str, float], *, status: str = "finished", reason: str | None = None,
    steps: int = 20, verifiable: dict[str, float] | None = None, every: int = 5,
) -> Path:  # fmt: skip
    """A job's folder after `steps` steps: held-out metrics that go from loss 3 and share 0.2 to `final`."""
    run = folder / job["name"]
    run.mkdir()
    _write_start(run)
    before = {"loss": 3.0, "share_inappropriate": 0.2, "p_inappropriate": 0.4, "p_others": 0.7}
    with MetricsLog(run / "metrics.jsonl") as log:
        log.append({"kind": "eval", "step": 0, **{f"heldout/{key}": value for key, value in before.items()}})
        for step in range(1, steps + 1):
            done = step / steps
            wave = 0.1 * math.sin(2.3 * step + job["index"])
            loss = 3 + (final.get("loss", 3.0) - 3) * done + wave
            log.append({"kind": "train", "step": step, "loss": loss, "tokens": TOKENS, "seconds": SECONDS})
            if step % every == 0:
                row = {key: final[key] if done == 1 and key in final else b + (final.get(key, b) - b) * done
                       for key, b in before.items()}  # fmt: skip
                log.append({"kind": "eval", "step": step, **{f"heldout/{key}": value for key, value in row.items()}})
    if verifiable:
        (run / "evaluation.json").write_text(json.dumps({"verifiable": verifiable}))
    if status == "finished":
        mark_finished(run, {"steps": steps})
    state = {"index": job["index"], "overrides": job["overrides"], "status": status, "reason": reason, "ranks": 2}
    ended = {"exit_code": 0 if status == "finished" else 1, "started": "2026-01-01T00:00:00+00:00", "seconds": 83.4}
    (run / "job.json").write_text(json.dumps(state | ended))
    return run
