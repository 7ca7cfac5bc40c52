"""Stand-ins for the stages that need a model, and the loop around them: no PyTorch, so that a test can kill it often.

`python online_stand_ins.py loop ROOT` runs the loop on stages that this file writes into ROOT/launch, the judge being
the real one. What a stage makes is a function of what it reads, so that any two ways to the end can be compared.
"""

from __future__ import annotations

import hashlib
import json
import logging
import sys
import time
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(CHECKOUT))

import yaml  # noqa: E402

from cut_dist.config_check import from_tree  # noqa: E402
from cut_dist.config_compose import compose_config  # noqa: E402
from cut_dist.online import rounds  # noqa: E402
from cut_dist.online.config import OnlineConfig  # noqa: E402
from cut_dist.online.records import Instruction, Response, read_records  # noqa: E402
from cut_dist.online.stage import open_stage  # noqa: E402

OVERRIDES = [
    "+experiment=online_smoke", "instructions.per_round=8", "instructions.heldout=3", "online.mix_earlier=0.5",
]  # fmt: skip
SECONDS_A_ROW = 0.02


def config(root: Path, *overrides: str) -> OnlineConfig:
    return compose_config("online", [*OVERRIDES, f"run.root={root}/runs", *overrides], OnlineConfig)


def write_stages(root: Path) -> Path:
    """A launch/ folder whose generate, train and evaluate are this file; `root/fail` makes one fail."""
    folder = root / "launch"
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("generate", "train", "evaluate"):
        (folder / f"{name}.py").write_text(
            f"import sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\n"
            f"from online_stand_ins import stage\nstage({name!r}, {str(root)!r})\n"
        )
    (folder / "judge.py").write_text(
        f"import sys\nsys.path.insert(0, {str(CHECKOUT)!r})\nsys.argv[0] = {str(CHECKOUT / 'launch' / 'judge.py')!r}\n"
        f"exec(open({str(CHECKOUT / 'launch' / 'judge.py')!r}).read().replace('__file__', 'sys.argv[0]'))\n"
    )
    return folder


def stage(name: str, root: str) -> None:
    """What a stand-in does when the loop starts it."""
    with open(Path(root) / "started", "a") as log:
        log.write(f"{name}\n")
    failing = Path(root) / "fail"
    if failing.exists() and failing.read_text() == name:
        sys.exit("no such luck")
    path = Path(sys.argv[sys.argv.index("--config-file") + 1])
    tree = yaml.safe_load(path.read_text())
    if name == "train":
        _train(tree)
        return
    cfg = from_tree(OnlineConfig, tree)
    (_generate if name == "generate" else _evaluate)(cfg, *cfg.stage.files(), root)


def _generate(cfg: OnlineConfig, source: Path, output: Path, root: str) -> None:
    instructions = read_records(source, Instruction)
    settings = {"model": cfg.model.name_or_path}
    with open_stage("generate", output, Response, {"instructions": source}, settings) as stage:
        for each in instructions:
            if each.id not in stage.rows and not stage.done:
                time.sleep(SECONDS_A_ROW)
                with open(Path(root) / "generated", "a") as log:
                    log.write(f"{each.id}\n")
                text = hashlib.sha256((each.id + str(cfg.model.name_or_path)).encode()).hexdigest()[:20]
                metadata = dict(each.metadata)
                stage.append([Response(each.id, each.id, each.instruction, text, "stop", 1, 1, {"seed": 1}, metadata)])
        if not stage.done:
            stage.finish([stage.rows[each.id] for each in instructions], {"stop": len(instructions)})


def _train(tree: dict) -> None:
    """Leaves what a training leaves: two steps whose loss is a function of the triplets."""
    folder = Path(tree["run"]["root"]) / tree["run"]["experiment"] / tree["run"]["name"]
    (folder / "model").mkdir(parents=True, exist_ok=True)
    triplets = Path(tree["data"]["path"]).read_bytes()
    made = hashlib.sha256(triplets + str(tree["model"]["name_or_path"]).encode()).hexdigest()
    rows = [{"kind": "train", "step": step, "loss": int(made[step], 16) / 16} for step in (1, 2)]
    for _ in rows:
        time.sleep(SECONDS_A_ROW)
        if (folder / "STOP").exists():
            return
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "model" / "config.json").write_text(json.dumps({"made": made}))
    (folder / "finished.json").write_text('{"steps": 2}')


def _evaluate(cfg: OnlineConfig, source: Path, output: Path, root: str) -> None:
    output.mkdir(parents=True, exist_ok=True)
    made = hashlib.sha256(str(cfg.model.name_or_path).encode()).hexdigest()
    numbers = {"strict": int(made[0], 16) / 16, "loose": 1.0}
    settings = {"verifiable": cfg.evaluation.of_suite("verifiable")}
    (output / "evaluation.json").write_text(json.dumps({"suites": {"verifiable": numbers}, "settings": settings}))


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    root = Path(sys.argv[2])
    rounds.LAUNCH = write_stages(root)
    rounds_cfg = config(root, *sys.argv[3:])
    sys.exit(rounds.run_rounds(rounds_cfg))
