"""A person as the judge: in a CSV file, or on a page of this machine where `judge.port` is given."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING

from cut_dist.judges.base import Judged, JudgeRequest
from cut_dist.judges.human_form import JUDGE, Answer, Form, Question
from cut_dist.judges.human_server import ask_on_page
from cut_dist.judges.human_sheet import ask_in_sheet

if TYPE_CHECKING:
    from cut_dist.online.config import OnlineConfig


def make(cfg: OnlineConfig) -> HumanJudge:
    """The judge of a stage; its sheet lies beside the stage's output, `judgments.to_judge.csv`."""
    output = Path(cfg.stage.output)
    return HumanJudge(output.with_name(f"{output.stem}.to_judge.csv"), cfg.judge.port)


def ask(form: Form, questions: Sequence[Question], done: Set[str], sheet: Path, port: int | None) -> Iterator[Answer]:
    """Answers of people, as they come; see `ask_in_sheet` and `ask_on_page` for what they raise."""
    return ask_in_sheet(form, questions, done, sheet) if port is None else ask_on_page(form, questions, done, port)


class HumanJudge:
    """Asks whoever sits here.

    Args:
        sheet: the CSV file to judge in; not touched where there is a port.
        port: of the page on 127.0.0.1; None asks in the sheet.
    """

    def __init__(self, sheet: Path, port: int | None = None) -> None:
        self.sheet, self.port = sheet, port

    def judge(self, requests: Sequence[JudgeRequest], done: Set[str] = frozenset()) -> Iterator[Judged]:
        """One `Judged` for each request that is answered; see `judges.base.Judge`.

        Raises:
            WaitingForPeople: after all that is there, where something is open.
        """
        questions = [Question(request.id, request.instruction, (request.response,)) for request in requests]
        for answer in ask(JUDGE, questions, done, self.sheet, self.port):
            perfect = answer.verdict == "perfect"
            detail = {"judge": "human", "asked": "sheet" if self.port is None else "page"}
            if perfect and answer.words:
                detail["remark"] = answer.words
            yield Judged(answer.id, perfect, None if perfect else answer.words, detail)
