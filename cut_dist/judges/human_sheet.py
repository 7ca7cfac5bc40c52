"""Questions as a CSV file that a person fills in with any spreadsheet program, and its way back.

<sheet>              one row a question; the person writes into the last two columns
<sheet>.asked.json   what was asked, so that rows that were mixed up or invented are told
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from cut_dist import durable
from cut_dist.judges.base import WaitingForPeople
from cut_dist.judges.human_form import Answer, Form, Question, readable
from cut_dist.wording import counted, nearest

_FORMULA = tuple("=+-@\t\r＝＋－＠")  # what a spreadsheet program takes for the beginning of a formula
_DELIMITERS = (",", ";", "\t")  # saving again in other countries changes the first into the second
_COMPARED = 1000  # characters of a cell; spreadsheet programs cut off what goes on for 32,767
_NAMED = 10  # problems that a message lists


def ask_in_sheet(form: Form, questions: Sequence[Question], sheet: Path) -> Iterator[Answer]:
    """Write the questions into `sheet` where it doesn't exist, else give what has been answered in it.

    Args:
        form: what is asked.
        questions: those that are open; rows of others that were asked in this sheet are left alone.
        sheet: a CSV file; it is written once and from then on only read.

    Raises:
        WaitingForPeople: not everything is answered; the message says how much, and what is wrong with which rows.
    """
    if not questions:
        return
    if not _asked_path(sheet).exists():
        _write(form, questions, sheet)
        raise WaitingForPeople(
            f"{counted(len(questions), 'row')} to judge in {sheet}: fill in the columns verdict "
            f"({', '.join(form.verdicts)}) and {form.words}, save it as CSV and start the same command again"
        )
    asked = json.loads(_asked_path(sheet).read_bytes())
    strange = [question.id for question in questions if asked.get(question.id) != _digest(question)]
    if strange:
        raise WaitingForPeople(f"{sheet} is of other responses ({_named(strange)} is not in it): move it away")
    filled, problems, present = _filled(form, _rows(form, sheet), asked)
    wanted = [question.id for question in questions]
    answers = [filled[id] for id in wanted if id in filled]
    yield from answers
    missing = [id for id in wanted if id not in present]
    if missing:
        problems.append(f"{counted(len(missing), 'row')} missing from it: {_named(missing)}")
    if len(answers) < len(wanted) or problems:
        said = "".join(f"\n  {problem}" for problem in problems[:_NAMED])
        more = f"\n  and {len(problems) - _NAMED} more" if len(problems) > _NAMED else ""
        raise WaitingForPeople(
            f"{counted(len(wanted) - len(answers), 'row')} of {sheet} still to judge, {len(answers)} taken: "
            f"fill in the rest and start the same command again{said}{more}"
        )


def _asked_path(sheet: Path) -> Path:
    return sheet.with_name(f"{sheet.name}.asked.json")


def _write(form: Form, questions: Sequence[Question], sheet: Path) -> None:
    if sheet.exists():
        raise WaitingForPeople(f"{sheet} is there, but was not written to be judged in (no {_asked_path(sheet).name})")
    text = io.StringIO(newline="")
    rows = csv.writer(text, quoting=csv.QUOTE_ALL)
    rows.writerow(_header(form))
    for question in questions:
        rows.writerow([f"[{question.id}]", *map(_cell, (question.instruction, *question.texts)), "", ""])
    sheet.parent.mkdir(parents=True, exist_ok=True)
    durable.replace_file(sheet, text.getvalue().encode("utf-8-sig"))  # by the mark Excel knows that it is UTF-8
    asked = {question.id: _digest(question) for question in questions}
    durable.replace_file(_asked_path(sheet), json.dumps(asked).encode())


def _header(form: Form) -> list[str]:
    return ["id", "instruction", *form.texts, "verdict", form.words]


def _cell(text: str) -> str:
    """Text that a spreadsheet program shows and does not compute."""
    shown = readable(text)
    return f"'{shown}" if shown.startswith(_FORMULA) else shown


def _digest(question: Question) -> str:
    return _cells_digest([question.instruction, *question.texts])


def _cells_digest(texts: Sequence[str]) -> str:
    """Of the first characters, apart from what saving again may change: white space and the quotation mark in front."""
    plain = [" ".join(readable(text).removeprefix("'").split())[:_COMPARED] for text in texts]
    return hashlib.sha256("\0".join(plain).encode()).hexdigest()


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
    form: Form, rows: Sequence[dict[str, str]], asked: Mapping[str, str]
) -> tuple[dict[str, Answer], list[str], set[str]]:
    """Answers by id, what is wrong in sentences, and the ids that have a row."""
    ids = [row["id"].strip().removeprefix("[").removesuffix("]") for row in rows]
    several = {id for id, count in Counter(ids).items() if count > 1}
    filled, problems = {}, [f"[{id}] has {Counter(ids)[id]} rows: keep one" for id in sorted(several & asked.keys())]
    for id, row in zip(ids, rows):
        verdict, words = row["verdict"].strip(), row[form.words].strip()
        verdict = {name.casefold(): name for name in form.verdicts}.get(verdict.casefold(), verdict)
        if id not in asked:
            hint = nearest(id, asked)
            problems.append(f"[{id}] was not asked{f'; did it read [{hint}]?' if hint else ''}")
        elif id in several or not (verdict or words):
            continue
        elif _cells_digest([row["instruction"], *(row[name] for name in form.texts)]) != asked[id]:
            problems.append(f"[{id}] stands beside another text than was asked: were the rows sorted by one column?")
        elif not verdict:
            problems.append(f"[{id}] has a {form.words}, but no verdict: write one of {', '.join(form.verdicts)}")
        elif problem := form.problem(verdict, words):
            problems.append(f"[{id}] {problem}")
        else:
            filled[id] = Answer(id, verdict, words)
    return filled, problems, set(ids)


def _named(ids: Sequence[str]) -> str:
    more = f" and {len(ids) - _NAMED} more" if len(ids) > _NAMED else ""
    return ", ".join(f"[{id}]" for id in ids[:_NAMED]) + more
