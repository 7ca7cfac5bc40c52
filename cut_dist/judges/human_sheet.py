"""Questions as a CSV file that a person fills in with any spreadsheet program, and its way back."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from pathlib import Path

from cut_dist import durable
from cut_dist.judges.base import WaitingForPeople
from cut_dist.judges.human_form import Answer, Form, Question, readable
from cut_dist.wording import counted, nearest

_FORMULA = tuple("=+-@\t\r＝＋－＠")  # what a spreadsheet program takes for the beginning of a formula
_DELIMITERS = (",", ";", "\t")  # saving again in other countries changes the first into the second
_COMPARED = 1000  # characters of a cell; spreadsheet programs cut off what goes on for 32,767
_NAMED = 10  # problems that a message lists


def ask_in_sheet(form: Form, questions: Sequence[Question], done: Set[str], sheet: Path) -> Iterator[Answer]:
    """Write the questions into `sheet` where it doesn't exist, else give what has been answered in it.

    Args:
        form: what is asked.
        questions: all of them, those that are done too.
        done: ids of those whose answers were taken before; their rows are not read again.
        sheet: a CSV file; it is written once and from then on only read.

    Raises:
        WaitingForPeople: not everything is answered; the message says how much, and what is wrong with which rows.
    """
    wanted = {question.id: question for question in questions if question.id not in done}
    if not wanted:
        return
    if not sheet.exists():
        _write(form, list(wanted.values()), sheet)
        raise WaitingForPeople(
            f"{counted(len(wanted), 'row')} to judge in {sheet}: fill in the columns verdict "
            f"({', '.join(form.verdicts)}) and {form.words}, save it as CSV and start the same command again"
        )
    answers, problems = _filled(form, _rows(form, sheet), wanted, done)
    yield from answers
    if len(answers) < len(wanted) or problems:
        said = "".join(f"\n  {problem}" for problem in problems[:_NAMED])
        more = f"\n  and {len(problems) - _NAMED} more" if len(problems) > _NAMED else ""
        raise WaitingForPeople(
            f"{counted(len(wanted) - len(answers), 'row')} of {sheet} still to judge, {len(answers)} taken: "
            f"fill in the rest and start the same command again{said}{more}"
        )


def _write(form: Form, questions: Sequence[Question], sheet: Path) -> None:
    text = io.StringIO(newline="")
    rows = csv.writer(text, quoting=csv.QUOTE_ALL)
    rows.writerow(_header(form))
    for question in questions:
        # in brackets no id looks like a number, a date or a formula, which a spreadsheet program would change
        rows.writerow([f"[{question.id}]", *map(_cell, (question.instruction, *question.texts)), "", ""])
    sheet.parent.mkdir(parents=True, exist_ok=True)
    durable.replace_file(sheet, text.getvalue().encode("utf-8-sig"))  # by the mark Excel knows that it is UTF-8


def _header(form: Form) -> list[str]:
    return ["id", "instruction", *form.texts, "verdict", form.words]


def _cell(text: str) -> str:
    """Text that a spreadsheet program shows and does not compute."""
    shown = readable(text)
    return f"'{shown}" if shown.startswith(_FORMULA) else shown


def _start(texts: Sequence[str]) -> list[str]:
    """The first characters, apart from what saving again may change: white space and the quotation mark in front."""
    return [" ".join(readable(text).removeprefix("'").split())[:_COMPARED] for text in texts]


def _rows(form: Form, sheet: Path) -> list[dict[str, str]]:
    header = _header(form)
    try:
        text = sheet.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise WaitingForPeople(f"{sheet} is not UTF-8 any more: save it as `CSV UTF-8`") from error
    except OSError as error:
        raise WaitingForPeople(f"{sheet} can't be read ({error.strerror}): put it back") from error
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))
    for delimiter in _DELIMITERS:
        try:
            first, *rest = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        except (csv.Error, ValueError):
            continue
        if set(header) <= set(first):
            return [dict(zip(first, [*row, *[""] * len(first)])) for row in rest if any(row)]
    raise WaitingForPeople(f"{sheet} is no CSV file with the columns {', '.join(header)}: restore its first row")


def _filled(
    form: Form, rows: Sequence[Mapping[str, str]], wanted: Mapping[str, Question], done: Set[str]
) -> tuple[list[Answer], list[str]]:
    """The answers in the sheet's rows, and in sentences what is wrong with the others."""
    ids = [row["id"].strip().removeprefix("[").removesuffix("]") for row in rows]
    answers, problems = [], []
    counts = Counter(ids)
    for id, count in counts.items():
        if id not in wanted and id not in done:
            hint = nearest(id, wanted)
            problems.append(f"[{id}] was not asked{f'; did it read [{hint}]?' if hint else ''}")
        elif id in wanted and count > 1:
            problems.append(f"[{id}] has {count} rows: keep one")
    for id, row in zip(ids, rows):
        if id not in wanted or counts[id] > 1:
            continue
        answer = _answer(form, id, row)
        problem = _problem(form, row, answer, wanted[id])
        if problem:
            problems.append(f"[{id}] {problem}")
        elif answer.verdict:
            answers.append(answer)
    missing = [f"[{id}]" for id in wanted if id not in ids]
    if missing:
        some = ", ".join(missing[:_NAMED]) + (", ..." if len(missing) > _NAMED else "")
        problems.append(f"{counted(len(missing), 'row')} missing, put them back or remove the file: {some}")
    return answers, problems


def _answer(form: Form, id: str, row: Mapping[str, str]) -> Answer:
    verdict, words = row["verdict"].strip(), row[form.words].strip()
    by_folded = {name.casefold(): name for name in form.verdicts}
    return Answer(id, by_folded.get(verdict.casefold(), verdict), words)


def _problem(form: Form, row: Mapping[str, str], answer: Answer, question: Question) -> str | None:
    """Why a row can't be taken; an empty one is no problem, only not judged yet."""
    if not answer.verdict and not answer.words:
        return None
    found = [row["instruction"], *(row[name] for name in form.texts)]
    if _start(found) != _start([question.instruction, *question.texts]):
        return "stands beside another text than was asked: was one column sorted by itself?"
    if not answer.verdict:
        return f"has a {form.words}, but no verdict: write one of {', '.join(form.verdicts)}"
    return form.problem(answer.verdict, answer.words)
