"""A person as the judge: in a CSV file, or on a page of this machine where `judge.port` is given."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from cut_dist.judges.base import Judged, JudgeRequest
from cut_dist.judges.human_form import JUDGE, Answer, Form, Question
from cut_dist.judges.human_server import ask_on_page
from cut_dist.judges.human_sheet import ask_in_sheet


def ask(form: Form, questions: Sequence[Question], sheet: Path, port: int | None) -> Iterator[Answer]:
    """Answers of people, as they come; see `ask_in_sheet` and `ask_on_page` for what they raise."""
    return ask_in_sheet(form, questions, sheet) if port is None else ask_on_page(form, questions, port)


class HumanJudge:
    """Asks whoever sits here.

    Args:
        sheet: the CSV file to judge in; not touched where there is a port.
        port: of the page on 127.0.0.1; None asks in the sheet.
    """

    def __init__(self, sheet: Path, port: int | None = None) -> None:
        self.sheet, self.port = sheet, port

    def judge(self, requests: Sequence[JudgeRequest]) -> Iterator[Judged]:
        """One `Judged` for each request that is answered.

        Raises:
            WaitingForPeople: after all that is there, where something is open.
        """
        questions = [Question(request.id, request.instruction, (request.response,)) for request in requests]
        for answer in ask(JUDGE, questions, self.sheet, self.port):
            perfect = answer.verdict == "perfect"
            detail = {"judge": "human", "asked": "page" if self.port else "sheet"}
            if perfect and answer.words:
                detail["remark"] = answer.words
            yield Judged(answer.id, perfect, None if perfect else answer.words, detail)
