"""report.html of an online run: curves over the rounds, what each round did, and answers side by side."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cut_dist import charts, durable
from cut_dist.lineage import read_lineage
from cut_dist.online.config import OnlineConfig
from cut_dist.online.files import REPORT, ROUNDS, RoundFiles
from cut_dist.online.samples import Sample, changed_samples
from cut_dist.online.summary import RoundSummary, read_rounds
from cut_dist.web_page import REPORT_STYLE, document, escape, table

_SAMPLES = 12
_STYLE = (
    REPORT_STYLE
    + """
.samples { display: grid; gap: 14px; }
.sample { border-top: 1px solid #dfe3e8; padding-top: 10px; }
.answers { display: grid; grid-auto-flow: column; grid-auto-columns: minmax(240px, 1fr); gap: 12px; overflow-x: auto; }
.answer { font-size: 13px; white-space: pre-wrap; overflow-wrap: anywhere; }
.ok { color: #226128; } .bad { color: #9c2f12; }
"""
)

Point = Callable[[RoundSummary], float | None]


def write_report(cfg: OnlineConfig, online: Path) -> None:
    """Write report.html and rounds.json, the same numbers for programs, of the rounds as far as they have come."""
    rounds = read_rounds(online)
    numbers = [{**dataclasses.asdict(each), "share_perfect": each.share_perfect} for each in rounds]
    durable.replace_file(online / ROUNDS, (json.dumps(numbers, indent=1) + "\n").encode())
    samples = changed_samples(online, [each.number for each in rounds], _SAMPLES)
    durable.replace_file(online / REPORT, render(cfg, online, rounds, samples).encode("utf-8", "backslashreplace"))


def render(cfg: OnlineConfig, online: Path, rounds: Sequence[RoundSummary], samples: Sequence[Sample]) -> str:
    """The whole page as text."""
    name = f"{cfg.run.experiment}/{cfg.run.name}"
    done = sum(each.trained for each in rounds)
    sections = {
        "What was run": _what(cfg, online),
        "Over the rounds": _curves(rounds),
        "Round by round": _rounds(rounds),
        "Answers to held-out instructions": _samples(samples),
        "Where each model comes from": _lineage(online, rounds),
    }
    shown = "".join(f"<section><h2>{escape(t)}</h2>{part}</section>\n" for t, part in sections.items() if part)
    head = f'<h1>Online alignment {escape(name)}</h1><p class="dim">{done} of {cfg.online.rounds} rounds trained</p>\n'
    return document(f"Online alignment {name}", _STYLE, head + shown)


def _what(cfg: OnlineConfig, online: Path) -> str:
    o, g, source = cfg.objective, cfg.generator, cfg.instructions
    asked = source.path or f"made here, at most {source.max_checks} checks each"
    facts = {
        "model": cfg.model.name_or_path or "random weights",
        "instructions": f"{source.per_round:,} a round, {asked}",
        "responses": f"{g.samples} to each by {g.name}, temperature {g.temperature:g}, up to {g.max_new_tokens} tokens",
        "judge": " ".join(filter(None, [cfg.judge.name, cfg.judge.model or cfg.judge.endpoint.model])),
        "objective": f"{o.name}, λ {o.lam:g}, α {o.alpha:g}, γ {o.gamma:g}, contrast {o.contrast}"
        + (f", without {o.without}" if o.without else ""),
        "training": f"lr {cfg.train.lr:g}, batches of {cfg.train.global_batch_size}, seed {cfg.seed}",
    }
    first = read_lineage(RoundFiles(online, 1).training)
    if first:
        code = first["starts"][-1]["code"]
        changed = ", with changes that are not committed" if code["git_dirty"] else ""
        facts["code"] = f"cut_dist {code['version']}, commit {(code['git_commit'] or 'none')[:12]}{changed}"
    return "<dl>" + "".join(f"<dt>{escape(key)}</dt><dd>{escape(value)}</dd>" for key, value in facts.items()) + "</dl>"


def _curves(rounds: Sequence[RoundSummary]) -> str:
    panels = {
        "share of perfect judgments": {"sampled responses": lambda each: each.share_perfect},
        "held-out instructions": {
            "strict": lambda each: each.evaluation.get("verifiable", {}).get("strict"),
            "loose": lambda each: each.evaluation.get("verifiable", {}).get("loose"),
        },
        "share of inappropriate tokens": {
            "before training": lambda each: each.before.get("share_inappropriate"),
            "after training": lambda each: each.after.get("share_inappropriate"),
        },
        "loss of held-out triplets": {
            "before training": lambda each: each.before.get("loss"),
            "after training": lambda each: each.after.get("loss"),
        },
        "cost so far, US dollars": {"generating, judging, evaluating": _cost_up_to(rounds)},
    }
    drawn = {title: [_line(rounds, name, value) for name, value in lines.items()] for title, lines in panels.items()}
    drawn = {title: [line for line in lines if line.points] for title, lines in drawn.items()}
    drawn = {title: lines for title, lines in drawn.items() if lines}
    if not drawn:
        return ""
    if not charts.available():
        return f'<p class="note">The curves need matplotlib: {escape(charts.REMEDY)}, then the same command again.</p>'
    titles = list(drawn)
    rows = [{title: drawn[title] for title in titles[at : at + 2]} for at in range(0, len(titles), 2)]
    return "".join(charts.curves(row, label=", ".join(row), xlabel="round") for row in rows)


def _line(rounds: Sequence[RoundSummary], name: str, value: Point) -> charts.Line:
    points = [(float(each.number), number) for each in rounds if (number := value(each)) is not None]
    return charts.Line(name, points)


def _cost_up_to(rounds: Sequence[RoundSummary]) -> Point:
    free = not any(each.cost for each in rounds)
    return lambda each: None if free else sum(other.cost for other in rounds if other.number <= each.number)


def _rounds(rounds: Sequence[RoundSummary]) -> str:
    head = (
        "round", "responses", "judged", "perfect", "set aside", "Align-N", "Align-P", "from earlier", "steps",
        "last loss", "inappropriate before", "after", "strict", "loose", "US dollars",
    )  # fmt: skip
    rows = []
    for each in rounds:
        verifiable, count = each.evaluation.get("verifiable", {}), each.counts.get
        numbers = [each.share_perfect, each.before.get("share_inappropriate"), each.after.get("share_inappropriate")]
        perfect, before, after = map(_percent, numbers)
        rows.append((
            str(each.number) if each.number else "before", str(each.responses or ""), str(each.judged or ""), perfect,
            str(count("set_aside", "")), str(count("align_n", "")), str(count("align_p", "")),
            str(count("from_earlier_rounds", "") or ""), str(each.steps or ""),
            f"{each.train['loss']:.3f}" if each.train else "", before, after, _percent(verifiable.get("strict")),
            _percent(verifiable.get("loose")), f"{each.cost:.2f}" if each.cost else "",
        ))  # fmt: skip
    told = [at for at in range(len(head)) if any(row[at] for row in rows)]
    return table([head[at] for at in told], [[row[at] for at in told] for row in rows])


def _samples(samples: Sequence[Sample]) -> str:
    if not samples:
        return ""
    note = "Greedy answers, those whose verdict changed first; the judgment below each is that of the program."
    parts = []
    for sample in samples:
        answers = "".join(
            f'<div class="answer"><div class="dim">{"before" if number == 0 else f"round {number}"}</div>'
            f"{escape(answer.text)}{_verdict(answer.satisfactory, answer.judgment)}</div>"
            for number, answer in sample.answers.items()
        )
        asked = f"<p>{escape(sample.instruction)}</p>"
        parts.append(f'<div class="sample">{asked}<div class="answers">{answers}</div></div>')
    return f'<p class="dim">{escape(note)}</p><div class="samples">{"".join(parts)}</div>'


def _verdict(satisfactory: bool | None, judgment: str | None) -> str:
    if satisfactory is None:
        return ""
    words, colour = ("satisfactory", "ok") if satisfactory else (judgment or "unsatisfactory", "bad")
    return f'\n<span class="{colour}">{escape(words)}</span>'


def _lineage(online: Path, rounds: Sequence[RoundSummary]) -> str:
    rows = []
    for each in rounds:
        files = RoundFiles(online, each.number)
        lineage = read_lineage(files.training)
        if lineage:
            place = str(files.training.relative_to(online))
            rows.append((str(each.number), _origin(lineage), *_hashes(lineage), place))
    if not rows:
        return ""
    head = ("round", "trained from", "triplets", "judgments", "responses", "instructions", "lineage.json in")
    return table(head, rows)


def _origin(lineage: dict[str, Any]) -> str:
    parent = lineage.get("parent")
    return parent["run"] if parent else str(lineage["model"]["name"])


def _hashes(lineage: dict[str, Any]) -> tuple[str, str, str, str]:
    """The first digits of the sha256 of what the round was trained on, back to the instructions."""
    triplets = lineage["data"].get("made_by") or {}
    judgments = triplets.get("inputs", {}).get("judgments", {})
    responses = triplets.get("inputs", {}).get("responses", {})
    instructions = (responses.get("made_by") or {}).get("inputs", {}).get("instructions", {})
    return tuple(each.get("sha256", "")[:12] for each in (triplets, judgments, responses, instructions))


def _percent(number: float | None) -> str:
    return "" if number is None else f"{number:.1%}"
