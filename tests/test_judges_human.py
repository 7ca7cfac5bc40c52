"""A person as the judge: what hostile text does to the file and the page, and what a person can get wrong."""

from __future__ import annotations

import csv
import http.client
import io
import os
import queue
import re
import signal
import socket
import threading
from html import unescape
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import pytest
from conftest import free_port

from cut_dist.cli import hydra_entry
from cut_dist.config_check import ConfigError
from cut_dist.config_compose import compose_config
from cut_dist.judges import human_page, human_server
from cut_dist.judges.base import Judged, JudgeRequest, WaitingForPeople
from cut_dist.judges.human import HumanJudge
from cut_dist.judges.human_form import COMPARE, JUDGE, Question, readable
from cut_dist.judges.make import make_judge
from cut_dist.judges.pairwise import HumanPairs, Pair, ours_first
from cut_dist.online.config import OnlineConfig
from cut_dist.online.judging import run_judging
from cut_dist.online.records import Response, write_records
from cut_dist.online.stage import read_manifest

HOSTILE = {
    "007": "=HYPERLINK(\"http://x\",\"a\")",
    "1-2": "+1\n-2\r\nthird; with, both\tand a tab",
    "TRUE": "@SUM(A1)",
    "ü#2": "“quotes” \"double\" 'single' — 漢字 👩‍👩‍👧 \u202eright to left\u202c",
    "a,b;c": "<script>alert(1)</script> & \x00\x1b[31m \ud800",
    "[x]": "'quoted at the start",
    "plain": "-",
}  # fmt: skip


def request(id: str, response: str, instruction: str = "Say\nsomething.") -> JudgeRequest:
    turns = ({"role": "user", "content": instruction}, {"role": "assistant", "content": response})
    return JudgeRequest(id, turns)


REQUESTS = [request(id, text) for id, text in HOSTILE.items()]


@pytest.fixture
def sheet(tmp_path: Path) -> Path:
    """A sheet with the hostile rows, written and not yet filled in."""
    path = tmp_path / "judgments.to_judge.csv"
    with pytest.raises(WaitingForPeople, match="7 rows to judge in .*perfect, flawed"):
        list(HumanJudge(path).judge(REQUESTS))
    return path


def rows_of(sheet: Path, delimiter: str = ",") -> list[list[str]]:
    return list(csv.reader(io.StringIO(sheet.read_text("utf-8-sig"), newline=""), delimiter=delimiter))


def save(sheet: Path, rows: list[list[str]], delimiter: str = ",", encoding: str = "utf-8") -> None:
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=delimiter).writerows(rows)
    sheet.write_bytes(text.getvalue().encode(encoding))


def fill(sheet: Path, answers: dict[str, tuple[str, str]], **how: str) -> None:
    """Fill in verdict and judgment by id, as a person would."""
    rows = rows_of(sheet)
    for row in rows[1:]:
        row[3:5] = answers.get(row[0][1:-1], ("", ""))
    save(sheet, rows, **how)


def taken(sheet: Path, requests=REQUESTS, done=frozenset()) -> tuple[list[Judged], str]:
    """What is given, and what is said of the rest ("" where nothing is open)."""
    found = []
    try:
        for judged in HumanJudge(sheet).judge(requests, done):
            found.append(judged)
    except WaitingForPeople as waiting:
        return found, str(waiting)
    return found, ""


def test_the_sheet_shows_hostile_text_and_computes_none_of_it(sheet):
    rows = rows_of(sheet)
    assert rows[0] == ["id", "instruction", "response", "verdict", "judgment"]
    assert [row[0] for row in rows[1:]] == [f"[{id}]" for id in HOSTILE]
    for row, text in zip(rows[1:], HOSTILE.values()):
        assert not row[2].startswith(("=", "+", "-", "@", "\t", "\r"))
        assert row[2].removeprefix("'") == readable(text).removeprefix("'")
        assert row[3:] == ["", ""]
    assert rows[4][2].count("\\u202e") == 1 and "👩‍👩‍👧" in rows[4][2]
    assert "\\x00\\x1b[31m \\ud800" in rows[5][2]
    assert sheet.read_bytes().startswith(b"\xef\xbb\xbf")


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_filled_sheet_comes_back_whole_however_it_is_saved(sheet, delimiter):
    words = {id: f'=Not: "{id}"; it\'s, wrong.\nAnd — ü.' for id in HOSTILE}
    answers = {id: ("flawed", words[id]) for id in HOSTILE} | {
        "TRUE": ("  Perfect ", ""),
        "plain": ("perfect", "Nice."),
    }
    fill(sheet, answers, delimiter=delimiter, encoding="utf-8-sig")
    found, said = taken(sheet)
    assert said == ""
    by_id = {judged.id: judged for judged in found}
    assert list(by_id) == list(HOSTILE)
    assert (by_id["TRUE"].satisfactory, by_id["TRUE"].judgment) == (True, None)
    assert (by_id["plain"].judgment, by_id["plain"].detail["remark"]) == (None, "Nice.")
    for id in HOSTILE.keys() - {"TRUE", "plain"}:
        assert (by_id[id].satisfactory, by_id[id].judgment) == (False, words[id])


def test_a_half_filled_sheet_gives_what_is_there_and_waits_for_the_rest(sheet):
    fill(sheet, {"007": ("flawed", "A formula."), "plain": ("perfect", "")})
    found, said = taken(sheet)
    assert [judged.id for judged in found] == ["007", "plain"]
    assert "5 rows of" in said and "2 taken" in said
    # the next start has these; their rows are not read again, whatever is in them by now
    fill(sheet, {id: ("perfect", "") for id in HOSTILE} | {"007": ("nonsense", "")})
    found, said = taken(sheet, done={"007", "plain"})
    assert ([judged.id for judged in found], said) == (["1-2", "TRUE", "ü#2", "a,b;c", "[x]"], "")
    assert taken(sheet, done=set(HOSTILE)) == ([], "")


def test_each_mistake_of_a_person_is_named_and_costs_only_its_row(sheet):
    fill(sheet, {"007": ("flawed", "  "), "1-2": ("prefect", ""), "TRUE": ("", "Words."), "plain": ("perfect", "")})
    rows = rows_of(sheet)
    rows[5][0] = "[a,b;d]"  # a slip in the id
    rows[4][3] = rows[6][3] = "perfect"
    rows[4][2], rows[6][2] = rows[6][2], rows[4][2]  # one column sorted by itself
    save(sheet, rows)
    found, said = taken(sheet)
    assert [judged.id for judged in found] == ["plain"]
    for problem in (
        "[007] flawed needs a judgment in words",
        "[1-2] 'prefect' is no verdict; write one of perfect, flawed",
        "[TRUE] has a judgment, but no verdict",
        "[a,b;d] was not asked; did it read [a,b;c]?",
        "[ü#2] stands beside another text",
        "[[x]] stands beside another text",
        "1 row missing, put them back or remove the file: [a,b;c]",
    ):
        assert problem in said


def test_a_row_that_comes_twice_is_not_chosen_from(sheet):
    fill(sheet, {id: ("perfect", "") for id in HOSTILE})
    save(sheet, [*rows_of(sheet), ["[007]", "", "", "flawed", "No."]])
    found, said = taken(sheet)
    assert len(found) == 6 and "[007] has 2 rows: keep one" in said


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no CSV file with the columns id, instruction"),
        (b"id,verdict\n1,perfect\n", "no CSV file with the columns"),
        ("id,instruction,response,verdict,judgment\n[007],\xfc,,,".encode("latin-1"), "save it as `CSV UTF-8`"),
    ],
)
def test_a_file_that_is_no_sheet_any_more_is_said(sheet, content, said):
    sheet.write_bytes(content)
    found, waiting = taken(sheet)
    assert found == [] and said in waiting


def test_an_empty_stage_asks_nobody(tmp_path):
    assert taken(tmp_path / "a.csv", requests=[]) == ([], "")
    assert list(tmp_path.iterdir()) == []


def test_the_stage_waits_with_status_75_and_goes_on(tmp_path, capsys):
    source, output = tmp_path / "responses.jsonl", tmp_path / "judgments.jsonl"
    write_records(source, [Response(id, id, "Say it.", text, "stop", 1, 1) for id, text in HOSTILE.items()])
    command = ["model=tiny_random", "judge=human", f"stage.input={source}", f"stage.output={output}"]

    def start() -> int:
        with pytest.raises(SystemExit) as ended:
            hydra_entry("online", lambda cfg: run_judging(cfg, *cfg.stage.files()), OnlineConfig, argv=command)
        return ended.value.code

    assert start() == 75
    sheet = tmp_path / "judgments.to_judge.csv"
    assert str(sheet) in capsys.readouterr().err
    fill(sheet, {"007": ("flawed", "It is a formula.")})
    assert start() == 75
    fill(sheet, {id: ("perfect", "") for id in HOSTILE})
    assert start() == 0
    assert read_manifest(output)["counts"] == {"satisfactory": 6, "unsatisfactory": 1, "set_aside": 0}


class Browser:
    """Reads the page and presses its buttons over HTTP."""

    def __init__(self, address: str) -> None:
        self.url = urlsplit(address)

    def send(self, method: str, path: str | None = None, body: str = "", **headers: str) -> tuple[int, str, dict]:
        connection = http.client.HTTPConnection("127.0.0.1", self.url.port, timeout=20)
        kind = {"Content-Type": "application/x-www-form-urlencoded"} if body else {}
        connection.request(method, path or self.url.path, body or None, {**kind, **headers})
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        return answer.status, text, dict(answer.getheaders())

    def shown(self) -> str:
        """The id of the question that the page asks."""
        return unescape(re.search('name="id" value="([^"]*)"', self.send("GET")[1])[1])

    def press(self, **fields: str) -> tuple[int, str, dict]:
        return self.send("POST", body=urlencode({"id": self.shown(), **fields}))


@pytest.fixture
def desk(monkeypatch):
    """Start a page in a thread, which collects its answers in a list."""
    threads, printed = [], queue.SimpleQueue()
    monkeypatch.setattr(human_server, "print", lambda text, **_: printed.put(text), raising=False)

    def start(answers, consumed: list) -> tuple[Browser, threading.Thread]:
        thread = threading.Thread(target=lambda: consumed.extend(answers), daemon=True)
        thread.start()
        threads.append(thread)
        return Browser(re.search(r"http://\S+", printed.get(timeout=20))[0]), thread

    yield start
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive(), "the page is still up"


def test_the_page_is_judged_on_to_the_end(desk):
    found: list[Judged] = []
    requests = [request(id, text) for id, text in list(HOSTILE.items())[:4]]
    browser, thread = desk(HumanJudge(Path("unused"), port=0).judge(requests, {"1-2"}), found)
    assert browser.shown() == "007"
    assert "1 of 4 judged" in browser.send("GET")[1]
    assert browser.press(skip="1", words="half a thought")[0] == 303
    assert browser.shown() == "TRUE"
    status, text, _ = browser.press(verdict="flawed", words=" \r\n")
    assert status == 422 and "flawed needs a judgment in words" in text
    assert browser.press(verdict="maybe", words="")[0] == 422
    assert browser.press(verdict="flawed", words="It sums.\r\nWhat?")[0] == 303
    # by the time the browser is told, the answer was given
    assert [(judged.id, judged.judgment) for judged in found] == [("TRUE", "It sums.\nWhat?")]
    assert browser.send("POST", body=urlencode({"id": "TRUE", "verdict": "perfect"}))[0] == 303  # sent twice
    assert browser.press(verdict="perfect")[0] == 303
    status, text, _ = browser.press(verdict="perfect", words="Good.")
    assert status == 200 and "All 4 are judged" in text
    thread.join(20)
    assert [(judged.id, judged.satisfactory) for judged in found] == [("TRUE", False), ("ü#2", True), ("007", True)]


def test_only_who_has_the_address_is_let_in(desk):
    found: list[Judged] = []
    browser, thread = desk(HumanJudge(Path("unused"), port=0).judge([request("a", "b")]), found)
    answer = urlencode({"id": "a", "verdict": "perfect"})
    for path in ("/", "/wrong/", browser.url.path.rstrip("/"), browser.url.path[:-2] + "/"):
        assert browser.send("GET", path)[0] == 404
        assert browser.send("POST", path, answer)[0] == 404
    assert browser.send("GET", Host="evil.example")[0] == 404  # a name that was made to point here
    assert browser.send("POST", body=answer, Origin="http://evil.example")[0] == 404
    assert browser.send("POST", body="x" * (2**20 + 1))[0] == 413
    assert found == []
    assert browser.send("POST", body=answer, Origin=f"http://localhost:{browser.url.port}")[0] == 200


def test_an_answer_that_is_not_written_down_is_not_said_to_be(desk):
    def breaks_down(answers):
        next(answers)
        answers.close()  # as when the caller's disk is full
        return []
        yield

    def consume():
        yield from breaks_down(judge.judge([request("a", "b"), request("c", "d")]))

    judge = HumanJudge(Path("unused"), port=0)
    browser, _ = desk(consume(), [])
    status, text, _ = browser.press(verdict="perfect")
    assert status == 500 and "This answer is lost" in text


def test_ctrl_c_ends_the_page_and_says_what_is_left():
    port = free_port()
    answers = HumanJudge(Path("unused"), port).judge([request("a", "b"), request("c", "d")])
    threading.Timer(0.5, os.kill, [os.getpid(), signal.SIGINT]).start()
    with pytest.raises(WaitingForPeople, match="2 responses still to judge: start the same command again"):
        next(answers)
    with pytest.raises(ConnectionRefusedError):
        Browser(f"http://127.0.0.1:{port}/").send("GET")


def test_a_taken_port_is_named():
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        with pytest.raises(ConfigError, match=f"judge.port={port}: Address already in use; give another port"):
            next(HumanJudge(Path("unused"), port).judge([request("a", "b")]))


def test_hostile_text_on_the_page_stays_text():
    attack = '</textarea></div><script>alert(1)</script><img src=x onerror="alert(1)">\x1b\u202e'
    question = Question(attack, attack, (attack,))
    page = human_page.question_page(JUDGE, question, "N0nce", done=0, total=2, problem=attack, words=attack)
    assert page.count("<script") == 1 and "<script nonce=" in page
    assert "<img" not in page and "\x1b" not in page and "\u202e" not in page
    assert page.count("&lt;/textarea&gt;") == 6
    policy = human_page.policy("N0nce")
    assert "default-src 'none'" in policy and "unsafe" not in policy and "script-src 'nonce-N0nce'" in policy


def test_every_page_is_sent_under_its_policy(desk):
    found: list[Judged] = []
    browser, thread = desk(HumanJudge(Path("unused"), port=0).judge([request("a", "b")]), found)
    seen = set()
    for _ in range(2):
        _, text, headers = browser.send("GET")
        nonce = re.search('<script nonce="([^"]+)"', text)[1]
        assert f"script-src 'nonce-{nonce}'" in headers["Content-Security-Policy"]
        assert headers["Cache-Control"] == "no-store" and headers["Referrer-Policy"] == "same-origin"
        seen.add(nonce)
    assert len(seen) == 2
    browser.press(verdict="perfect")


def test_pairs_are_shown_without_saying_whose_they_are(tmp_path):
    pairs = [Pair(f"p{n}", "Say.", f"ours {n}", f"theirs {n}") for n in range(40)]
    sheet = tmp_path / "to_compare.csv"
    with pytest.raises(WaitingForPeople):
        list(HumanPairs(sheet).compare(pairs))
    rows = rows_of(sheet)
    assert rows[0] == ["id", "instruction", *COMPARE.texts, "verdict", "reason"]
    first = sum(row[2].startswith("ours") for row in rows[1:])
    assert 10 < first < 30 and first == sum(map(ours_first, pairs))
    for row in rows[1:]:  # ours is better in the first 10, neither in the next 10, then theirs
        number = int(row[0][2:-1])
        ours = "A" if row[2].startswith("ours") else "B"
        row[4] = ours if number < 10 else "tie" if number < 20 else {"A": "b", "B": "a"}[ours]
    save(sheet, rows)
    outcomes = [preference.outcome for preference in HumanPairs(sheet).compare(pairs)]
    assert outcomes == ["win"] * 10 + ["tie"] * 10 + ["loss"] * 20


def test_the_judge_of_a_stage_has_its_sheet_beside_the_output(tmp_path):
    cfg = compose_config(
        "online", ["model=tiny_random", "judge=human", f"stage.output={tmp_path}/j.jsonl"], OnlineConfig
    )
    judge = make_judge(cfg)
    assert (judge.sheet, judge.port) == (tmp_path / "j.to_judge.csv", None)
