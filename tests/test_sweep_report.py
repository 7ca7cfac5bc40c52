"""A sweep's report: the page, the ranking in the terminal, and the command that makes both anew."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console
from sweep_folder import jobs_of, write_job, write_sweep

from cut_dist import charts
from cut_dist.sweep.report import write_report

SWEPT = {"objective.gamma": ["1", "2"], "objective.lam": ["1.1", "1.2"], "objective.alpha": ["0.5", "1"]}


class Reader(HTMLParser):
    """The elements of a page, its texts, and its ids; every element must be closed in its order."""

    VOID = {"meta"}

    def __init__(self, page: str):
        super().__init__()
        self.open, self.tags, self.ids, self.texts, self.labels = [], [], [], [], []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.tags.append(tag)
        self.ids += [found["id"]] if "id" in found else []
        self.labels += [found["aria-label"]] if "aria-label" in found else []
        assert not any(name.startswith("on") for name in found), "no handlers"
        assert all(v.startswith("#") for n, v in found.items() if n in ("href", "src", "xlink:href")), found
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        self.texts.append(text)


def make(folder: Path, *arguments: str) -> tuple[str, str]:
    """The page and what the terminal shows, of 80 columns."""
    out = io.StringIO()
    write_report(folder, *arguments, console=Console(file=out, width=80))
    return (folder / "report.html").read_text(encoding="utf-8"), out.getvalue()


@pytest.fixture
def sweep(tmp_path) -> Path:
    """2x2x2 jobs: the first failed, the last waiting; the loss falls with the index."""
    folder = write_sweep(tmp_path / "paper", SWEPT)
    for job in jobs_of(folder)[:-1]:
        index = job["index"]
        state = {"status": "failed", "reason": "rank 1: no memory left"} if index == 0 else {}
        final = {"loss": 2.5 - 0.125 * index, "share_inappropriate": 0.03125 * index}
        write_job(folder, job, final, verifiable={"strict": 0.0625 * index}, **state)
    return folder


def test_the_page_holds_everything_and_needs_nothing(sweep):
    page, _ = make(sweep)
    read = Reader(page)
    assert 'content="default-src \'none\'; style-src \'unsafe-inline\'"' in page
    assert {"script", "img", "image", "link", "iframe"}.isdisjoint(read.tags)
    assert len(read.ids) == len(set(read.ids)) > 50, "ids of different charts don't collide"
    referred = re.findall(r"url\(#(.+?)\)|href=\"#(.+?)\"", page)
    assert referred and {a or b for a, b in referred} <= set(read.ids)
    titles = [text for text in read.texts if text in page and f"<h2>{text}</h2>" in page]
    assert titles == [
        "What was run", "Ranking", "The swept values against each other", "Parallel coordinates", "Curves",
        "Failed, or not read",
    ]  # fmt: skip
    assert read.labels == [
        "loss, L1 + L2 by λ and α", "share of inappropriate tokens by λ and α",
        "verifiable accuracy, strict by λ and α", "Each job's values and loss, L1 + L2",
        "Losses and share of inappropriate tokens over steps",
    ]  # fmt: skip
    texts = {text.strip() for text in read.texts}
    assert {"γ = 1", "γ = 2", "2.375", "1.750"} <= texts, "maps of λ and α for each γ, with their numbers"
    assert "2.500" not in texts, "a failed job has no place in the maps"
    assert "rank 1: no memory left" in texts
    assert any(text.startswith("launch/sweep.py +experiment=smoke") for text in texts)
    words = " ".join(read.texts)
    assert "24 triplets to train on, 4 held out (content 0ebdb4b69495)" in words
    assert "6 of 8 jobs finished. Best: γ 2, λ 1.2, α 0.5 (loss 1.7500)." in words


def test_the_terminal_ranks_within_80_columns(sweep):
    _, shown = make(sweep)
    lines = shown.splitlines()
    assert "8 jobs, the lowest held-out loss first" in lines[0]
    ranked = [line.split() for line in lines if re.match(r" {4}\d ", line)]
    assert [row[0] for row in ranked] == ["1", "2", "3", "4", "5", "6"]
    assert ranked[0][1:5] == ["2", "1.2", "0.5", "1.7500"]
    assert "alpha-0.5_gamma-1_lam-1.1: rank 1: no memory left" in lines
    assert all(len(line) <= 80 for line in lines if "/" not in line)
    assert str(sweep / "results.csv") in shown and str(sweep / "report.html") in shown


def test_another_metric_ranks_and_is_shown_first(sweep):
    page, shown = make(sweep, "verifiable_strict", "max")
    assert "the highest acc. strict first" in shown
    assert Reader(page).labels[0] == "verifiable accuracy, strict by λ and α"
    page, _ = make(sweep, "p_others", "max")
    assert Reader(page).labels[0] == "p of all other tokens of Align-N by λ and α"


def test_a_sweep_is_ranked_by_its_own_metric_unless_asked_otherwise(sweep):
    content = json.loads((sweep / "sweep.json").read_text())
    (sweep / "sweep.json").write_text(json.dumps(content | {"metric": "verifiable_strict", "direction": "max"}))
    assert "the highest acc. strict first" in make(sweep)[1]
    assert "the lowest held-out loss first" in make(sweep, "loss")[1]


def test_damaged_records_of_one_job_leave_the_page_whole(sweep):
    first, second, *_ = jobs_of(sweep)
    for job, name in ((first, "identity.json"), (second, "lineage.json")):
        (sweep / job["name"] / name).write_text("{")
    words = " ".join(Reader(make(sweep)[0]).texts)
    assert "24 triplets to train on" in words and "6 of 8 jobs finished" in words


def test_text_stays_text(tmp_path):
    evil = "</text></svg><script>alert(1)</script>&$x^2$\x1b[31m\u202e"
    folder = write_sweep(tmp_path / "s", {"data.path": [evil, "b"], "seed": ["1", "2"]}, name=f"name {evil}")
    content = (folder / "sweep.json").read_text()
    for index, job in enumerate(jobs_of(folder)):
        content = content.replace(json.dumps(job["name"]), f'"job-{index}"')
    (folder / "sweep.json").write_text(content)
    for job in jobs_of(folder):
        write_job(folder, job, {"loss": 2.0 + job["index"]}, reason=evil, verifiable={evil: 0.5})
    page, shown = make(folder)
    read = Reader(page)
    assert "script" not in read.tags and read.tags.count("svg") == 5
    for text in (page, shown):
        assert "\x1b" not in text and "\u202e" not in text
    assert sum(text.count("<script>alert(1)</script>&$x^2$\\x1b[31m\\u202e") for text in read.texts) > 10
    assert any(text.startswith("…") and text.endswith("$x^2$\\x1b[31m\\u202e") for text in read.texts), "in a chart"


@pytest.mark.parametrize("swept", [{"train.lr": ["1e-6", "1e-5"]}, {"seed": ["1"]}])
def test_one_swept_key_and_none_that_varies(tmp_path, swept):
    folder = write_sweep(tmp_path / "one", swept)
    for job in jobs_of(folder):
        write_job(folder, job, {"loss": 2.0 + job["index"]})
    page, _ = make(folder)
    labels = Reader(page).labels
    assert ("loss, L1 + L2 by lr" in labels) == ("train.lr" in swept)
    assert "Parallel coordinates" not in page and "<h2>Curves</h2>" in page


def test_a_search_with_ever_new_values_is_shown_by_dots_and_in_order(tmp_path):
    folder = write_sweep(tmp_path / "search", {"train.lr": ["1e-6"], "objective.alpha": ["0.5"]})
    rates, weights = [f"{7 * i % 20 + 1}e-6" for i in range(20)], [f"0.{i}" for i in range(10, 30)]
    swept = {"train.lr": rates, "objective.alpha": weights}
    tried = [dict(zip(swept, values)) for values in zip(*swept.values())]
    jobs = [{"index": i, "name": f"job-{i}", "overrides": overrides} for i, overrides in enumerate(tried)]
    content = json.loads((folder / "sweep.json").read_text()) | {"jobs": jobs, "swept": swept}
    (folder / "sweep.json").write_text(json.dumps(content))
    for job in jobs:
        write_job(folder, job, {"loss": 2.0 + job["index"]})
    read = Reader(make(folder)[0])
    assert read.labels[:2] == ["loss, L1 + L2 by α", "loss, L1 + L2 by lr"]
    ticks = [text for text in read.texts if re.fullmatch(r"\d+e-6", text)]
    at = ticks.index("1e-6", 20)  # after the ranking: the first chart
    assert ticks[at : at + 7] == ["1e-6", "4e-6", "7e-6", "10e-6", "13e-6", "16e-6", "19e-6"]


def test_a_sweep_that_has_only_begun_has_a_page_too(tmp_path):
    folder = write_sweep(tmp_path / "new", SWEPT)
    page, shown = make(folder)
    assert "0 of 8 jobs finished. None of them has a rank yet" in page and "svg" not in Reader(page).tags
    assert shown.count("waiting") == 8
    write_job(folder, jobs_of(folder)[0], {"loss": float("nan")})
    page, _ = make(folder)
    assert "1 of 8 jobs finished. None of them has a rank yet" in page and "<h2>Curves</h2>" in page


def test_without_matplotlib_there_are_tables_and_the_remedy(sweep, monkeypatch, caplog):
    monkeypatch.setattr(charts, "available", lambda: False)
    page, _ = make(sweep)
    read = Reader(page)
    assert "svg" not in read.tags and "table" in read.tags
    assert any("pip install matplotlib, then python launch/sweep_report.py" in text for text in read.texts)
    assert "pip install matplotlib" in caplog.text


def test_a_hundred_jobs_stay_a_small_page(tmp_path):
    swept = {"objective.lam": ["1", "1.1", "1.2", "1.3", "1.4"], "objective.alpha": ["0.25", "0.5", "0.75", "1", "2"]}
    folder = write_sweep(tmp_path / "many", swept | {"objective.gamma": ["0.25", "0.5", "1", "2"]})
    for job in jobs_of(folder):
        write_job(folder, job, {"loss": 2.0 + 0.01 * job["index"]}, steps=150, every=50)
    page, _ = make(folder)
    assert len(Reader(page).labels) == 4
    assert len(page.encode()) < 2**20


def test_the_command_makes_it_anew(sweep, root):
    command = [sys.executable, str(root / "launch/sweep_report.py")]
    done = subprocess.run([*command, str(sweep), "--metric", "p_others", "--max"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "the highest held-out p others first" in done.stdout and (sweep / "report.html").exists()
    alone = subprocess.run([*command, str(sweep), "--max"], capture_output=True, text=True)
    assert alone.returncode == 2 and "--max says which end of --metric is the better one" in alone.stderr
    for wrong, said in ((sweep.parent, "has no sweep.json"), (sweep, "is not ranked by 'nonsense'")):
        failed = subprocess.run([*command, str(wrong), "--metric", "nonsense"], capture_output=True, text=True)
        assert failed.returncode == 1 and said in failed.stderr and "Traceback" not in failed.stderr
