"""Records out of JSON, CSV and tables, one at a time: a bad one costs only itself, and its place is known."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cut_dist.data.triplets import DataError, NoRowsLeft
from cut_dist.wording import nearest

_EXCERPT = 400  # bytes or characters; Reject shows fewer
_SPACE = re.compile(r"[ \t\r\n]*")
_HUB_NAME = re.compile(r"(?P<name>[\w.-]+(?:/[\w.-]+)?)(?::(?P<config>[\w.-]+))?")
_RAW_BYTE = re.compile("[\udc80-\udcff]")  # what errors="surrogateescape" makes of a byte that is not UTF-8


@dataclass(frozen=True)
class Record:
    """One record of a file: its fields, or the reason why there are none.

    Attributes:
        source: its place, as in `Triplet.source`.
        excerpt: how its text begins.
        fields: the JSON object, or None where `problem` says what is wrong.
        problem: reason in the form of `Reject.reason`.
    """

    source: str
    excerpt: str
    fields: dict[str, object] | None
    problem: str | None = None


def require_file(path: str | os.PathLike) -> None:
    """Raise a DataError, naming the likest file that is there, unless `path` is a file; nothing is read."""
    place = Path(path)
    if place.is_dir():
        raise DataError(f"{path} is a folder; data.path and data.heldout_path name one file each")
    if not place.exists():
        meant = nearest(place.name, [p.name for p in place.parent.iterdir()] if place.parent.is_dir() else [])
        hint = f"; did you mean {place.with_name(meant)}?" if meant else ""
        raise DataError(f"{path}: no such file (data.path; paths are relative to {Path.cwd()}){hint}")


def read_bytes(path: str | os.PathLike) -> bytes:
    """The bytes of a data file, unpacked where its name ends in .gz.

    Raises:
        DataError: no such file, a folder, an empty file, or one that cannot be read or unpacked.
    """
    require_file(path)
    place = Path(path)
    try:
        data = place.read_bytes()
        if place.suffix == ".gz":
            data = gzip.decompress(data)
    except (OSError, EOFError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    if not data.strip():
        raise NoRowsLeft(f"{path} is empty: it needs at least one row")
    return data


def read_json_records(path: str) -> Iterator[Record]:
    """Records of a JSON array or of a JSONL file, told apart by the first character.

    Raises:
        DataError: a JSON array whose syntax is broken (with line and column), or what is neither of the two.
    """
    data = read_bytes(path).removeprefix(b"\xef\xbb\xbf")
    first = data.lstrip()[:1]
    if first == b"[":
        return _array_records(path, data.decode("utf-8", "surrogateescape"))
    if first == b"{" or b"\n" in data.strip():
        return _line_records(path, data)
    raise DataError(f"{path} is neither a JSON array nor JSONL: it begins with {data[:20]!r}")


def read_csv_records(path: str) -> Iterator[Record]:
    """Rows of a comma- or tab-separated file with a header. All cells are text; an empty cell is null."""
    delimiter = "\t" if ".tsv" in Path(path).suffixes else ","
    text = read_bytes(path).decode("utf-8-sig", "surrogateescape")
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))  # of the whole process: only ever raised
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        header = next(rows)
        if len(set(header)) < len(header):
            raise DataError(f"{path}: two columns of the header have the same name: {', '.join(header)}")
        line = rows.line_num + 1
        for row in rows:
            if row:
                yield _csv_record(f"{path}:{line}", header, row)
            line = rows.line_num + 1
    except csv.Error as error:
        raise DataError(f"{path}:{rows.line_num}: not a CSV file: {error}") from error


def read_table_records(path: str, split: str) -> Iterator[Record]:
    """Rows of a Parquet file or of a Hub data set ("org/name" or "org/name:config"), by `datasets`."""
    hub = _HUB_NAME.fullmatch(path)
    if path.endswith(".parquet"):
        require_file(path)
        what, request = "a Parquet file", {"path": "parquet", "data_files": path, "split": "train"}
    elif hub:
        what = f"a data set of the Hub, and no such file is in {Path.cwd()}"
        request = {"path": hub["name"], "name": hub["config"], "split": split}
    else:
        raise DataError(f"{path}: no such file (data.path), and not a name that the Hub could have")
    import datasets  # takes seconds to import, and few runs need it

    try:
        table = datasets.load_dataset(**request)
    except Exception as error:  # a zoo of exceptions: network, authorisation, unknown split, broken file
        reason = str(error).strip().partition("\n")[0]
        raise DataError(f"{path} could not be loaded as {what}: {reason}") from error
    for index, row in enumerate(table):
        yield Record(f"{path}[{index}]", str(row), row)


def _csv_record(source: str, header: list[str], row: list[str]) -> Record:
    excerpt = ",".join(row)
    if len(row) != len(header):
        return Record(
            source, excerpt, None, f"wrong number of cells: {len(row)} under {len(header)} headings"
        )
    if not_utf8 := _RAW_BYTE.search(excerpt):
        return Record(source, excerpt, None, f"not UTF-8: byte 0x{ord(not_utf8[0]) - 0xDC00:02x} in the row")
    return Record(source, excerpt, {name: cell or None for name, cell in zip(header, row, strict=True)})


def _line_records(path: str, data: bytes) -> Iterator[Record]:
    lines = data.split(b"\n")  # not splitlines(): U+2028 and the like may stand inside a JSON string
    parser = _Parser()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        excerpt = line[:_EXCERPT].decode("utf-8", "surrogateescape")
        fields, problem = _parse_line(parser, line, is_unfinished=number == len(lines))
        yield Record(f"{path}:{number}", excerpt, fields, problem)


def _parse_line(
    parser: _Parser, line: bytes, is_unfinished: bool
) -> tuple[dict[str, object] | None, str | None]:
    """Parse one line; `is_unfinished`: no newline ends it, so half a character at its end was cut off."""
    if b"\0" in line:
        return None, f"NUL byte: at byte {line.index(0) + 1} of the line"
    try:
        text = line.decode("utf-8").strip()
    except UnicodeDecodeError as error:
        if is_unfinished and error.reason == "unexpected end of data":
            return None, "truncated line: the file ends inside a character"
        return None, f"not UTF-8: byte 0x{line[error.start]:02x} at byte {error.start + 1} of the line"
    try:
        value, end = parser.decode(text, 0)
        if end != len(text):
            return None, f"not valid JSON: more text after the object, at column {end + 1}"
    except json.JSONDecodeError as error:
        if not text.startswith("{"):
            return None, f"not JSON: the line begins with {text[:12]!r}"
        cut = not text.endswith("}") or error.pos >= len(text)
        kind = "truncated line: it ends inside its JSON" if cut else f"not valid JSON: {error.msg}"
        return None, f"{kind}, at column {error.pos + 1}"
    except (ValueError, RecursionError) as error:
        return None, f"not valid JSON: {error}"
    return parser.checked(value)


def _array_records(path: str, text: str) -> Iterator[Record]:
    """Elements of one JSON array, parsed one by one: each has its line, and its flaws are its own."""
    # Control characters inside strings are let through here: a NUL then costs its row and not the file.
    parser = _Parser(strict=False)
    position, line, index = _SPACE.match(text, text.index("[") + 1).end(), 1, 0
    line += text.count("\n", 0, position)
    if text[position : position + 1] == "]":
        raise DataError(f"{path} is an empty array: it needs at least one row")
    separator = ","
    while separator == ",":
        try:
            value, end = parser.decode(text, position)
        except json.JSONDecodeError as error:
            raise DataError(f"{path}:{error.lineno}: {_syntax(error, text, index)}") from None
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}:{line}: not valid JSON in element {index}: {error}") from None
        yield _array_record(f"{path}:{line}[{index}]", text[position:end], *parser.checked(value))
        end = _SPACE.match(text, end).end()
        separator = text[end : end + 1]
        following = _SPACE.match(text, end + 1).end()
        if separator not in (",", "]") or (separator == "]" and following < len(text)):
            what = "Expecting ',' or ']'" if separator != "]" else "More text after the array"
            error = json.JSONDecodeError(what, text, end if separator != "]" else following)
            raise DataError(f"{path}:{error.lineno}: {_syntax(error, text, index)}")
        line += text.count("\n", position, following)
        position, index = following, index + 1


def _array_record(source: str, raw: str, fields: dict[str, object] | None, problem: str | None) -> Record:
    excerpt = raw[:_EXCERPT]
    if not_utf8 := _RAW_BYTE.search(raw):
        return Record(source, excerpt, None, f"not UTF-8: byte 0x{ord(not_utf8[0]) - 0xDC00:02x} in the row")
    return Record(source, excerpt, fields, problem)


def _syntax(error: json.JSONDecodeError, text: str, index: int) -> str:
    cut = error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated string")
    what = "the file ends too early" if cut else error.msg
    return (
        f"not valid JSON: {what} (column {error.colno}, at element {index} of the array). "
        "A JSON array is read whole or not at all; in JSONL a broken row costs only itself"
    )


class _Parser:
    """json with the two things that Python's lets pass in silence noted: repeated keys and NaN literals."""

    def __init__(self, strict: bool = True) -> None:
        self._flaws: list[str] = []
        self._decoder = json.JSONDecoder(
            object_pairs_hook=self._object, parse_constant=self._constant, strict=strict
        )

    def decode(self, text: str, position: int) -> tuple[object, int]:
        self._flaws.clear()
        return self._decoder.raw_decode(text, position)

    def checked(self, value: object) -> tuple[dict[str, object] | None, str | None]:
        """The value just decoded if it is a flawless object, else the reason why not."""
        if self._flaws:
            return None, self._flaws[0]
        if not isinstance(value, dict):
            return None, "not an object: a row is a JSON object with named fields"
        return value, None

    def _object(self, pairs: list[tuple[str, object]]) -> dict[str, object]:
        fields = dict(pairs)
        if len(fields) < len(pairs):
            seen: set[str] = set()
            repeated = next(key for key, _ in pairs if key in seen or seen.add(key))
            self._flaws.append(f'duplicate key: "{repeated}" stands twice in one object')
        return fields

    def _constant(self, literal: str) -> None:
        self._flaws.append(f"NaN literal: {literal} is not JSON")
