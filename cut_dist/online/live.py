"""Where the loop is: a table that lives in a terminal, elsewhere a line at each turn."""

from __future__ import annotations

import logging
import time
from pathlib import Path

from rich.console import Console
from rich.live import Live as RichLive
from rich.table import Table

from cut_dist.online.config import OnlineConfig
from cut_dist.online.summary import RoundSummary, read_rounds

log = logging.getLogger(__name__)

_LINE_EVERY_S = 30.0
_TAIL_LINES = 15


class Live:
    """Shows the rounds of an online run while it goes on; a context manager."""

    def __init__(self, cfg: OnlineConfig, online: Path) -> None:
        self._cfg, self._online = cfg, online
        self._console = Console(stderr=True)
        self._live = RichLive(console=self._console, auto_refresh=False) if self._console.is_terminal else None
        self._where, self._at_start = (0, ""), 0
        self._began = self._said = time.monotonic()

    def __enter__(self) -> Live:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        if self._live:
            self.refresh()
            self._live.stop()
        elif kind is None:
            Console().print(rounds_table(read_rounds(self._online), self._cfg))

    def begin(self, number: int, stage: str) -> None:
        """The loop comes to a stage of round `number`."""
        self._where, self._began, self._said = (number, stage), time.monotonic(), time.monotonic()
        self._at_start, _ = _count(_find(read_rounds(self._online), number), stage)
        if self._live:
            self.refresh()
        else:
            log.info("round %d of %d: %s", number, self._cfg.online.rounds, stage)

    def refresh(self) -> None:
        """Show what the files say now."""
        if self._live:
            rounds = read_rounds(self._online)
            self._live.update(rounds_table(rounds, self._cfg, self._now(rounds)), refresh=True)
        elif time.monotonic() - self._said > _LINE_EVERY_S:
            self._said = time.monotonic()
            log.info("%s", self._now(read_rounds(self._online)))

    def say(self, text: str) -> None:
        """A line above the table."""
        if self._live:
            self._live.console.print(text, highlight=False, markup=False)
        else:
            log.info("%s", text)

    def ended_early(self, stage: str, how: str, console: Path) -> None:
        """Say how a stage ended before it was done, and the last it printed."""
        tail = console.read_text(errors="replace").splitlines()[-_TAIL_LINES:]
        self.say("\n".join([f"{stage} of round {self._where[0]} {how}. {console}:", *tail]))

    def _now(self, rounds: list[RoundSummary]) -> str:
        """Where the loop is, in words; "" before its first stage."""
        number, stage = self._where
        if not stage:
            return ""
        return how_far(_find(rounds, number), stage, time.monotonic() - self._began, self._at_start)


def rounds_table(rounds: list[RoundSummary], cfg: OnlineConfig, now: str = "") -> Table:
    """The rounds as a table, one a row.

    Args:
        rounds: as far as they have come.
        now: where the loop is, in words.
    """
    cost = sum(each.cost for each in rounds)
    title = f"{cfg.run.experiment}/{cfg.run.name}, {cfg.online.rounds} rounds" + (f", ${cost:.2f}" if cost else "")
    table = Table(title=title, title_justify="left", caption=now or None, caption_justify="left")
    for name in ("round", "generated", "judged", "perfect", "Align-N/P", "trained", "evaluated"):
        table.add_column(name, justify="right")
    for each in rounds:
        table.add_row(*_cells(each, cfg))
    return table


def how_far(each: RoundSummary, stage: str, elapsed: float, at_start: int) -> str:
    """How far a stage of a round is, how fast, and what the round has cost.

    Args:
        elapsed: seconds since the stage began, or was gone on with.
        at_start: how much of it was done then.
    """
    count, noun = _count(each, stage)
    parts = [f"round {each.number}: {stage}", f"{count} {noun}"]
    if count > at_start and elapsed > 0:
        parts.append(f"{(count - at_start) / elapsed * 60:.1f} a minute")
    if stage == "train" and each.train:
        parts.append(f"loss {each.train['loss']:.4f}")
    if each.cost:
        parts.append(f"${each.cost:.2f}")
    minutes, seconds = divmod(int(elapsed), 60)
    return ", ".join([*parts, f"{minutes} min {seconds:02d} s"])


def _find(rounds: list[RoundSummary], number: int) -> RoundSummary:
    return next((each for each in rounds if each.number == number), RoundSummary(number))


def _count(each: RoundSummary, stage: str) -> tuple[int, str]:
    """How much of a stage is done, and of what."""
    return {
        "generate": (each.responses, "responses"),
        "judge": (each.judged, "judged"),
        "train": (each.steps, "steps"),
        "answer": (each.answers, "answers"),
        "evaluate": (each.answers, "answers"),
    }[stage]


def _cells(each: RoundSummary, cfg: OnlineConfig) -> list[str]:
    total = each.instructions * cfg.generator.samples
    perfect = "" if each.share_perfect is None else f"{each.share_perfect:.1%}"
    counts = f"{each.counts['align_n']}/{each.counts['align_p']}" if "align_n" in each.counts else ""
    trained = f"{each.steps} steps, loss {each.train['loss']:.3f}" if each.train else ""
    evaluated = f"{each.evaluation['verifiable']['strict']:.1%}" if "verifiable" in each.evaluation else ""
    if not evaluated and each.evaluation:
        evaluated = ", ".join(each.evaluation)
    generated = f"{each.responses}/{total}" if total else ""
    judged = f"{each.judged}/{total}" if each.judged else ""
    return [str(each.number) if each.number else "before", generated, judged, perfect, counts, trained, evaluated]
