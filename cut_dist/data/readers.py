"""Files of triplets read into one schema; a row that is not a triplet is reported with place and reason."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path

from cut_dist.data.formats import FORMATS, Format, Row
from cut_dist.data.records import Record, read_csv_records, read_json_records, read_table_records, require_file
from cut_dist.data.triplets import REQUIRED_ROLES, ROLES, DataError, Reject, RowError, Triplet, make_triplet
from cut_dist.wording import counted

logger = logging.getLogger(__name__)

_CSV_SUFFIXES = (".csv", ".csv.gz", ".tsv", ".tsv.gz")
_JSON_SUFFIXES = (".json", ".jsonl", ".json.gz", ".jsonl.gz")
_CONTENT_ROLES = (*REQUIRED_ROLES, "input", "id")  # a row keeps its id when it gets a refinement


def read_triplets(
    path: str, *, format: str = "auto", columns: dict[str, str] | None = None, split: str = "train"
) -> tuple[list[Triplet], list[Reject]]:
    """Read a file (or, with `format="columns"`, a data set of the Hub) of triplets.

    Args:
        path: a JSON array, JSONL, CSV, TSV (each also .gz) or Parquet file, or a Hub name ("org/name" or
            "org/name:config").
        format: a key of `FORMATS`, "auto" (told by the field names) or "columns" (told by `columns`).
        columns: for format "columns": {"instruction": …, "response": …, "judgment": …} and optionally "input",
            "id" and "refinement", each naming a field of the file.
        split: which split of a Hub data set.

    Returns:
        The valid triplets in the order of the file, and every other row with the reason.

    Raises:
        DataError: the file as a whole cannot be read, or not in this format.
    """
    if format not in ("auto", "columns", *FORMATS):
        raise DataError(f"data.format={format!r}: choose one of {', '.join(['auto', *FORMATS, 'columns'])}")
    if columns is not None and format == "auto":
        format = "columns"
    if (columns is None) == (format == "columns"):
        raise DataError("data.format=columns and data.columns need each other: set both or neither")
    records = list(_records(path, split, is_table_allowed=format == "columns"))
    if format == "columns":
        chosen = Format(_checked_columns(columns))
        _check_fields_exist(path, chosen.columns, records)
    else:
        chosen = FORMATS[_detect(path, records) if format == "auto" else format]
    return _triplets(path, records, chosen)


def require_source(path: str, *, format: str, columns: dict[str, str] | None) -> None:
    """Raise a DataError if `read_triplets` with the same arguments will find no file. Nothing is read or downloaded."""
    if not _is_table(path, format == "columns" or columns is not None) or path.endswith(".parquet"):
        require_file(path)


def _triplets(path: str, records: list[Record], chosen: Format) -> tuple[list[Triplet], list[Reject]]:
    triplets: list[Triplet] = []
    rejects: list[Reject] = []
    num_left_out = 0
    seen: dict[str, str] = {}
    copies: Counter[str] = Counter()
    for record in records:
        for row in _rows(record, chosen):
            if row is None:
                num_left_out += 1
                continue
            try:
                if isinstance(row, RowError):
                    raise row
                row_id = _content_id(row, chosen.columns, copies)
                triplet = make_triplet(row, chosen.columns, row_id, record.source)
                if triplet.id in seen:
                    raise RowError(f'duplicate id: "{triplet.id}", first at {seen[triplet.id]}')
            except RowError as error:
                known_id = _known_id(row, chosen.columns)
                rejects.append(Reject.at(record.source, str(error), record.excerpt, known_id))
            else:
                seen[triplet.id] = triplet.source
                triplets.append(triplet)
    if num_left_out:
        logger.info("%s: %s marked as skipped, or empty: no rows", path, counted(num_left_out, "answer"))
    return triplets, rejects


def _rows(record: Record, chosen: Format) -> Iterable[Row | RowError | None]:
    if record.fields is None:
        return [RowError(record.problem)]
    return chosen.expand(record.fields) if chosen.expand else [record.fields]


def _known_id(row: Row | RowError, columns: Mapping[str, str]) -> str | None:
    value = None if isinstance(row, RowError) else row.get(columns.get("id", ""))
    return None if value is None else str(value)


def _content_id(row: Row, columns: Mapping[str, str], copies: Counter[str]) -> str:
    """An id from a row's content, so that it does not depend on the row's place; equal rows are numbered."""
    if row.get(columns.get("id", "")) is not None:
        return ""
    content = "\0".join(repr(row.get(columns.get(role, ""))) for role in _CONTENT_ROLES)
    digest = hashlib.sha256(content.encode()).hexdigest()[:16]
    copies[digest] += 1
    return digest if copies[digest] == 1 else f"{digest}-{copies[digest]}"


def _records(path: str, split: str, is_table_allowed: bool) -> Iterable[Record]:
    if path.endswith(_CSV_SUFFIXES):
        return read_csv_records(path)
    return read_table_records(path, split) if _is_table(path, is_table_allowed) else read_json_records(path)


def _is_table(path: str, is_table_allowed: bool) -> bool:
    """Whether `datasets` reads it: a Parquet file or, where allowed, what is no file and may be a name on the Hub."""
    is_file = Path(path).exists() or path.endswith((*_CSV_SUFFIXES, *_JSON_SUFFIXES))
    return path.endswith(".parquet") or (is_table_allowed and not is_file)


def _detect(path: str, records: list[Record]) -> str:
    """The format whose marks the first readable records carry."""
    readable = list(islice((r.fields for r in records if r.fields is not None), 20))
    for fields in readable:
        for name, known in FORMATS.items():
            if all(mark in fields for mark in known.marks):
                return name
    if not readable:
        return "cut_dist"  # every record is already a reject; any format reports them
    found = ", ".join(sorted(map(str, readable[0])))
    wanted = "; ".join(f"{name}: {', '.join(known.marks)}" for name, known in FORMATS.items())
    raise DataError(
        f"{path}: no known format has the fields {found}. Known are {wanted}. "
        "Use data.format=columns with data.columns to name the fields"
    )


def _checked_columns(columns: Mapping[str, str]) -> Mapping[str, str]:
    for role in columns:
        if role not in ROLES:
            raise DataError(f"data.columns has no role {role!r}: the roles are {', '.join(ROLES)}")
    for role in REQUIRED_ROLES:
        if role not in columns:
            raise DataError(f"data.columns needs the role {role!r}: which field of the file holds it?")
    return columns


def _check_fields_exist(path: str, columns: Mapping[str, str], records: list[Record]) -> None:
    available = {str(name): None for record in records if record.fields is not None for name in record.fields}
    missing = [f"{role}: {name}" for role, name in columns.items() if name not in available]
    if missing and available:
        have = ", ".join(available)
        raise DataError(f"{path} has no column for data.columns.{', '.join(missing)}; its columns are {have}")
