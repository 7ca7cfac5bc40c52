"""What the study is made of: cells, each one measurement of one laboratory, in a file of its own once it is done."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cut_dist import durable

if TYPE_CHECKING:
    from cut_dist.study.config import StudyConfig
    from cut_dist.study.trainer import Trainer

Numbers = dict[str, Any]
TUNING_SEED = 1000  # no result comes from this laboratory
DESIGN = 4  # of world, corpus, judgments and cells: raised where a change makes other numbers of the same settings
LABORATORY = "laboratory"  # in a report, what has the settings that its cells were made with
REAL = "real"  # folder in a study's with the settings of the real model, which are claimed apart
FAILED = "failed"  # the key under which a cell that can't be measured says why
MACHINE = "machine"  # the key under which each says what it was measured on


@dataclass(frozen=True)
class Cell:
    """One measurement.

    Attributes:
        name: `<part>/<seed>/<what>`, its place under `cells/`.
        seed: the laboratory's.
        measure: what does it, given the laboratory and the results of the cells before it.
        needs: names of the cells whose results it reads, or whose files it takes; it can't be made if one failed.
        laboratory: makes the laboratory from study, seed, the folder of all and the trainer.
        candidates: names of the cells of the tuning that it chooses among; some of them may have failed.
    """

    name: str
    seed: int
    measure: Callable[[Any, Results], Numbers]
    needs: tuple[str, ...]
    laboratory: Callable[[StudyConfig, int, Path, Trainer], Any]
    candidates: tuple[str, ...] = ()

    @property
    def waits_for(self) -> tuple[str, ...]:
        """Names of all cells that come before it."""
        return self.needs + self.candidates


class Results(Mapping[str, Numbers]):
    """The cells that are done, by name: one JSON file each under `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, name: str) -> Path:
        return self.folder / f"{name}.json"

    def __getitem__(self, name: str) -> Numbers:
        try:
            return json.loads(self.path(name).read_text())
        except FileNotFoundError:
            raise KeyError(name) from None

    def __contains__(self, name: object) -> bool:
        return self.path(str(name)).exists()

    def __iter__(self):
        return iter(sorted(str(p.relative_to(self.folder).with_suffix("")) for p in self.folder.rglob("*.json")))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def write(self, name: str, numbers: Numbers) -> None:
        path = self.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        durable.replace_file(path, json.dumps(numbers, indent=1).encode())
