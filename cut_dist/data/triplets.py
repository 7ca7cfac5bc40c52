"""One validated schema for instruction–response–judgment triplets, and the report of rows that fail it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cut_dist.wording import UserError, counted, nearest

# What a file's own fields can stand for. "input" is joined to the instruction on a new line, as released.
REQUIRED_ROLES = ("instruction", "response", "judgment")
ROLES = (*REQUIRED_ROLES, "input", "id", "refinement")

_EXCERPT_CHARS = 100
_LISTED_REJECTS = 20
_SOURCE = re.compile(r"(?P<file>.*?)(?::(?P<line>\d+))?(?:\[(?P<index>\d+)\])?", re.DOTALL)


@dataclass(frozen=True)
class Triplet:
    """One response with what it answered and what the judge said of it.

    Attributes:
        id: unique in its file; rows without one get a hash of their content.
        instruction: the task, with the format's separate input (if any) joined on a new line.
        response: what the model answered.
        judgment: the authentic negative judgment, or None where the judge found the response satisfactory.
        source: where it was read: "file:line", "file:line[index]" in a JSON array, "file[index]" in a table.
        refinement: the response made better by its judgment (for the ILF objectives), where the row has one.
    """

    id: str
    instruction: str
    response: str
    judgment: str | None
    source: str
    refinement: str | None = None

    @property
    def is_negative(self) -> bool:
        """True for Align-N (the response has a negative judgment), False for Align-P."""
        return self.judgment is not None


@dataclass(frozen=True)
class Reject:
    """A row that is not trained on, and why.

    Attributes:
        file: the file (or data set) that it came from.
        line: its line, counted from 1; 0 where the source has no lines (a table).
        reason: "kind" or "kind: detail".
        excerpt: how the row begins.
        id: its id, where one could be read.
        index: its position counted from 0 in a JSON array or a table, else None.
    """

    file: str
    line: int
    reason: str
    excerpt: str
    id: str | None
    index: int | None = None

    @classmethod
    def at(cls, source: str, reason: str, excerpt: str, id: str | None = None) -> Reject:
        """Make a reject from a place written like `Triplet.source`."""
        place = _SOURCE.fullmatch(source)
        index = place["index"]
        line = int(place["line"] or 0)
        return cls(place["file"], line, reason, shorten(excerpt), id, None if index is None else int(index))

    @classmethod
    def of(cls, triplet: Triplet, reason: str) -> Reject:
        """Reject a row that was a valid triplet until its tokens were looked at."""
        return cls.at(triplet.source, reason, triplet.instruction, triplet.id)

    @property
    def place(self) -> str:
        line = f":{self.line}" if self.line else ""
        index = "" if self.index is None else f"[{self.index}]"
        return f"{self.file}{line}{index}"

    @property
    def kind(self) -> str:
        """The reason without its detail, to count by."""
        return self.reason.partition(":")[0]


class DataError(UserError, ValueError):
    """Data that cannot be used as a whole; the message names the file and the remedy."""


class NoRowsLeft(DataError):
    """A file that can be read but has no row of the kind that is asked for."""


class BadRowsError(DataError):
    """Rows that are not valid triplets, under `data.on_bad_row=error`.

    Attributes:
        rejects: every bad row; the message lists the first 20 and counts all by kind.
    """

    def __init__(self, rejects: Sequence[Reject], rows_read: int, remedy: str) -> None:
        self.rejects = list(rejects)
        head = f"{len(rejects):,} of {counted(rows_read, 'row')} cannot be used as found."
        super().__init__(f"{head}\n{reject_table(rejects)}\n{remedy}")


class RowError(ValueError):
    """Why one row is bad. Its text becomes `Reject.reason`."""


def shorten(text: str) -> str:
    """The beginning of a text on one printable line, for reports. Lone surrogates become escapes."""
    text = text[:_EXCERPT_CHARS].encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def reject_table(rejects: Sequence[Reject]) -> str:
    """The first 20 rejects as aligned "place  reason" lines, then the count of each kind; empty for none."""
    if not rejects:
        return ""
    shown = rejects[:_LISTED_REJECTS]
    width = max((len(r.place) for r in shown), default=0)
    lines = [f"  {r.place:<{width}}  {r.reason}" for r in shown]
    if len(rejects) > len(shown):
        lines.append(f"  … and {len(rejects) - len(shown):,} more")
    kinds = Counter(r.kind for r in rejects).most_common()
    return "\n".join([*lines, "By reason: " + ", ".join(f"{kind} {count:,}" for kind, count in kinds)])


def make_triplet(row: Mapping[str, object], columns: Mapping[str, str], row_id: str, source: str) -> Triplet:
    """Validate one row.

    Args:
        row: the row's fields under its file's own names; fields that no role asks for are ignored.
        columns: role ("instruction", "response", "judgment", optionally "input", "id" and "refinement") to field name.
        row_id: the id of a row that has none.
        source: as in `Triplet.source`.

    Raises:
        RowError: naming the field and what is wrong with it.
    """
    for role in REQUIRED_ROLES:
        if columns[role] not in row:
            raise _missing(row, columns, role)
    instruction = _text(row, columns["instruction"], "instruction")
    if "input" in columns and row.get(columns["input"]) not in (None, ""):
        instruction = f"{instruction}\n{_text(row, columns['input'], 'input')}"
    response = _text(row, columns["response"], "response")
    judgment = _judgment(row, columns["judgment"])
    refinement = _refinement(row, columns.get("refinement"))
    return Triplet(_id(row, columns.get("id"), row_id), instruction, response, judgment, source, refinement)


def _missing(row: Mapping[str, object], columns: Mapping[str, str], role: str) -> RowError:
    """Says what the row has instead: the field with the likest name, or the only one that no role asks for."""
    field, others = columns[role], [str(name) for name in row if name not in columns.values()]
    meant = nearest(field, others) or (others[0] if len(others) == 1 else None)
    note = " (null where the response is satisfactory)" if role == "judgment" else ""
    has, hint = shorten(", ".join(map(str, row))), f'; did you mean "{shorten(meant)}"?' if meant else ""
    return RowError(f'missing field: "{field}"{note}; this row has: {has or "nothing"}{hint}')


def _judgment(row: Mapping[str, object], field: str) -> str | None:
    """None for Align-P: null, or a judgment that begins with "Perfect." (paper A.4, figure 8)."""
    if row[field] is None:
        return None
    if isinstance(row[field], str) and not row[field].strip():
        raise RowError(f'empty judgment: "{field}"; write null where the response is satisfactory')
    judgment = _text(row, field, "judgment")
    if judgment.startswith("Perfect."):
        return None
    if re.sub(r"\W", "", judgment).lower() == "perfect":
        raise RowError(
            f'ambiguous judgment: "{field}" is {shorten(judgment)!r}; praise is null or begins with '
            '"Perfect.", anything else would be trained on as a negative judgment'
        )
    return judgment


def _refinement(row: Mapping[str, object], field: str | None) -> str | None:
    """None where there is none: most objectives need none, so a blank one makes no bad row."""
    value = row.get(field) if field else None
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    return _text(row, field, "refinement")


def _text(row: Mapping[str, object], field: str, role: str) -> str:
    value = row[field]
    if not isinstance(value, str):
        raise RowError(f'wrong type: "{field}" is {_json_type(value)}, expected text')
    if not value.strip():
        raise RowError(f'empty {role}: "{field}" has no visible text')
    _check_characters(value, field)
    return value


def _id(row: Mapping[str, object], field: str | None, row_id: str) -> str:
    value = row.get(field) if field else None
    if value is None:
        return row_id
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise RowError(f'wrong type: "{field}" is {_json_type(value)}, expected text or an integer')
    if not str(value).strip():
        raise RowError(f'empty id: "{field}"; leave the field out to have one made')
    _check_characters(str(value), field)
    return str(value)


def _check_characters(text: str, field: str) -> None:
    if "\0" in text:
        raise RowError(f'NUL byte: in "{field}"')
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        code = f"U+{ord(text[error.start]):04X}"
        raise RowError(f'lone surrogate: {code} at character {error.start + 1} of "{field}"') from None


def _json_type(value: object) -> str:
    names = {type(None): "null", bool: "a boolean", int: "a number", float: "a number", list: "a list"}
    return names.get(type(value), "an object" if isinstance(value, dict) else type(value).__name__)
