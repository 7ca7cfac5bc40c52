"""Files in every format the project reads, and files that are broken in every way it reports."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import datasets
import pandas
import pytest

from cut_dist.data.formats import FORMATS
from cut_dist.data.readers import read_triplets
from cut_dist.data.triplets import DataError


def row(number: int, **changes: object) -> dict:
    fields = {
        "id": f"r{number}",
        "instruction": f"Task {number}",
        "response": f"Answer {number}",
        "judgment": None,
    }
    return {k: v for k, v in {**fields, **changes}.items() if v is not ...}


def write_jsonl(path: Path, rows: list) -> str:
    lines = [r if isinstance(r, bytes) else json.dumps(r).encode() for r in rows]
    path.write_bytes(b"\n".join(lines) + b"\n")
    return str(path)


def write_json(path: Path, value: object, **options) -> str:
    path.write_text(json.dumps(value, **options))
    return str(path)


# ---- the project's own format, and 1,000 rows with every defect ----


def test_own_jsonl_is_read_in_order_with_lines(tmp_path):
    path = write_jsonl(tmp_path / "d.jsonl", [row(1, judgment="Wrong."), b"", row(2, note="ignored")])
    triplets, rejects = read_triplets(path)
    assert rejects == []
    assert [(t.id, t.judgment, t.source) for t in triplets] == [
        ("r1", "Wrong.", f"{path}:1"),
        ("r2", None, f"{path}:3"),
    ]


# Kind of reason, and the line that has the defect, of row number n.
DEFECTS = {
    "missing field": lambda n: row(n, response=...),
    "wrong type": lambda n: row(n, instruction=[n]) if n % 2 else row(n, response=None),
    "empty response": lambda n: row(n, response="" if n % 2 else " \n"),
    "empty judgment": lambda n: row(n, judgment="  "),
    "empty instruction": lambda n: row(n, instruction=""),
    "not UTF-8": lambda n: json.dumps(row(n, response="caf#")).encode().replace(b"#", b"\xe9"),
    "lone surrogate": lambda n: row(n, judgment="bad \ud800 half"),
    "duplicate key": lambda n: json.dumps(row(n)).encode().replace(b'"response"', b'"instruction"', 1),
    "NaN literal": lambda n: row(n, score=float("nan") if n % 2 else float("-inf")),
    "NUL byte": lambda n: row(n, response="a\0b") if n % 2 else json.dumps(row(n)).encode() + b"\0",
    "duplicate id": lambda n: row(n, id="r0"),
    "truncated line": lambda n: json.dumps(row(n)).encode()[: -1 - n % 9],
    "not an object": lambda n: json.dumps([n]).encode(),
    "not valid JSON": lambda n: b"{'id': 1}" if n % 2 else json.dumps(row(n)).encode() + b"{}",
}


def test_each_of_ten_rows_of_every_defect_is_rejected_with_line_and_reason_and_the_rest_kept_in_order(
    tmp_path,
):
    defects = [(kind, make) for kind, make in DEFECTS.items() for _ in range(10)]
    bad_rows = {
        5 + 7 * k: defect for k, defect in enumerate(defects)
    }  # row number to defect, among 1,000 rows
    rows = [bad_rows[n][1](n) if n in bad_rows else row(n) for n in range(1000)]
    path = write_jsonl(tmp_path / "d.jsonl", rows)

    triplets, rejects = read_triplets(path)

    assert [(r.file, r.line, r.kind) for r in rejects] == [
        (path, n + 1, kind) for n, (kind, _) in bad_rows.items()
    ]
    assert [t.id for t in triplets] == [f"r{n}" for n in range(1000) if n not in bad_rows]
    assert all(t.source == f"{path}:{int(t.id[1:]) + 1}" for t in triplets)


def test_reasons_name_the_detail(tmp_path):
    rows = [
        row(0),
        row(1, id="r0"),
        b'{"id": "x", "id": "y", "instruction": "i", "response": "r", "judgment": null}',
        json.dumps(row(3)).encode().replace(b"Answer", b"Answ\xff"),
        b'{"instruction": "i" "response"}',
    ]
    path = write_jsonl(tmp_path / "d.jsonl", rows)
    _, rejects = read_triplets(path)
    assert [r.reason for r in rejects] == [
        f'duplicate id: "r0", first at {path}:1',
        'duplicate key: "id" stands twice in one object',
        "not UTF-8: byte 0xff at byte 56 of the line",
        "not valid JSON: Expecting ',' delimiter, at column 21",
    ]
    assert rejects[0].id == "r0"


@pytest.mark.parametrize("cut", [2, 9, 30, 60])
def test_a_last_line_without_its_end_is_reported_as_truncated(tmp_path, cut):
    path = tmp_path / "d.jsonl"
    path.write_bytes(json.dumps(row(1)).encode() + b"\n" + json.dumps(row(2)).encode()[:cut])
    triplets, rejects = read_triplets(str(path), format="cut_dist")
    assert [t.id for t in triplets] == ["r1"]
    assert [(r.line, r.kind) for r in rejects] == [(2, "truncated line")]


def test_a_last_line_cut_inside_a_character_is_truncated_and_a_whole_one_without_newline_is_fine(tmp_path):
    path = tmp_path / "d.jsonl"
    whole = json.dumps(row(1)).encode()
    path.write_bytes(whole + b'\n{"id": "caf\xc3')
    assert [r.kind for r in read_triplets(str(path))[1]] == ["truncated line"]
    path.write_bytes(whole + b'\n{"id": "caf\xc3\n')
    assert [r.kind for r in read_triplets(str(path))[1]] == ["not UTF-8"]
    path.write_bytes(whole + b'\n{"id" 3}')
    assert [r.kind for r in read_triplets(str(path))[1]] == ["not valid JSON"]
    path.write_bytes(whole)
    assert len(read_triplets(str(path))[0]) == 1


def test_separators_inside_strings_do_not_break_lines(tmp_path):
    text = "one\u2028two\u0085three\r"
    path = tmp_path / "d.jsonl"
    path.write_bytes(json.dumps(row(1, response=text), ensure_ascii=False).encode() + b"\r\n")
    triplets, rejects = read_triplets(str(path))
    assert [t.response for t in triplets] == [text]
    assert rejects == []


def test_hostile_json_is_a_bad_row_and_not_a_crash(tmp_path):
    rows = [row(0), b'{"a":' + b"[" * 100_000, b'{"a": ' + b"9" * 5000 + b"}"]
    _, rejects = read_triplets(write_jsonl(tmp_path / "d.jsonl", rows))
    assert [r.line for r in rejects] == [2, 3]


def test_ids_made_from_content_do_not_depend_on_the_order(tmp_path):
    rows = [row(n, id=...) for n in (1, 2, 3, 1)]
    first, rejects = read_triplets(write_jsonl(tmp_path / "a.jsonl", rows))
    second, _ = read_triplets(write_jsonl(tmp_path / "b.jsonl", rows[::-1]))
    assert rejects == []
    assert len({t.id for t in first}) == 4
    assert {t.id: t.response for t in first} == {t.id: t.response for t in second}


# ---- JSON arrays ----


def test_elements_of_an_array_have_their_line_and_index(tmp_path):
    path = write_json(tmp_path / "d.json", [row(1), row(2, response=""), row(3)], indent=2)
    triplets, rejects = read_triplets(path)
    assert [t.source for t in triplets] == [f"{path}:2[0]", f"{path}:14[2]"]
    assert [(r.line, r.index, r.kind) for r in rejects] == [(8, 1, "empty response")]


def test_flaws_inside_an_array_cost_their_own_row_only(tmp_path):
    texts = [json.dumps(row(n)).encode() for n in range(6)]
    texts[1] = texts[1].replace(b"Answer", b"Answ\xe9")
    texts[2] = texts[2].replace(b'"response"', b'"instruction"')
    texts[3] = texts[3].replace(b"null", b"NaN")
    texts[4] = texts[4].replace(b"Answer", b"An\0swer")
    path = tmp_path / "d.json"
    path.write_bytes(b"\xef\xbb\xbf[" + b",\n".join(texts) + b"]\n")
    triplets, rejects = read_triplets(str(path))
    assert [t.id for t in triplets] == ["r0", "r5"]
    assert [(r.line, r.kind) for r in rejects] == [
        (2, "not UTF-8"),
        (3, "duplicate key"),
        (4, "NaN literal"),
        (5, "NUL byte"),
    ]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ('[\n{"a": 1},\n{"a" 2}]', ":3: not valid JSON: Expecting ':' delimiter (column 6, at element 1"),
        ('[{"a": 1},\n{"a": "x', ":2: not valid JSON: the file ends too early (column 7, at element 1"),
        ('[{"a": 1}\n{"a": 2}]', ":2: not valid JSON: Expecting ',' or ']' (column 1, at element 0"),
        ('[{"a": 1},\n]', ":2: not valid JSON: "),
        ('[{"a": 1}]\n\n[]', ":3: not valid JSON: More text after the array (column 1"),
        ('[{"a": 1}', ":1: not valid JSON: the file ends too early"),
        ("[" * 100_000, ":1: not valid JSON in element 0: "),
        ("[ ]", " is an empty array"),
    ],
)
def test_a_broken_array_is_one_error_that_names_the_place(tmp_path, text, place):
    path = tmp_path / "d.json"
    path.write_text(text)
    with pytest.raises(DataError) as error:
        read_triplets(str(path))
    assert str(error.value).startswith(f"{path}{place}")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b'"text"', "neither a JSON array nor JSONL"),
    ],
)
def test_files_that_are_no_data_at_all(tmp_path, content, message):
    path = tmp_path / "d.jsonl"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_triplets(str(path))


def test_a_folder_and_a_broken_archive_are_refused_in_words(tmp_path):
    with pytest.raises(DataError, match="is a folder"):
        read_triplets(str(tmp_path))
    (tmp_path / "d.jsonl.gz").write_bytes(b"not gzip")
    with pytest.raises(DataError, match="cannot be read"):
        read_triplets(str(tmp_path / "d.jsonl.gz"))


# ---- published formats ----


@pytest.mark.parametrize(
    ("name", "negatives"), [("iter1", 287), ("iter2", 231), ("iter3", 242), ("iter4", 245)]
)
def test_the_released_triplets_are_read_whole(shared_data, name, negatives):
    triplets, rejects = read_triplets(str(shared_data / "data" / "cut_online" / f"{name}.json"))
    assert rejects == []
    assert len(triplets) == 1000
    assert sum(t.is_negative for t in triplets) == negatives


def test_alpaca_joins_the_input_and_takes_a_score_of_seven_for_praise(tmp_path):
    rows = [
        {"id": 0, "instruction": "Add.", "input": "1 2", "output": "3", "judgment": None},
        {"id": 1, "instruction": "Add.", "input": None, "output": "4", "judgment": "No.", "score": 1},
        {"id": 2, "instruction": "Add.", "input": "", "output": "5", "judgment": "Fine.", "score": 7},
        {"id": 3, "instruction": "Add.", "input": "", "judgment": None},
    ]
    triplets, rejects = read_triplets(write_json(tmp_path / "d.json", rows))
    assert [(t.id, t.instruction, t.response, t.judgment) for t in triplets] == [
        ("0", "Add.\n1 2", "3", None),
        ("1", "Add.", "4", "No."),
        ("2", "Add.", "5", None),
    ]
    assert [(r.id, r.kind) for r in rejects] == [("3", "missing field")]


def test_shepherd(tmp_path):
    fields = {"id": 4, "question": "2+2?", "answer": "5\n\n", "feedback": "It is 4.", "meta": {"domain": "x"}}
    triplets, rejects = read_triplets(write_jsonl(tmp_path / "d.jsonl", [fields]))
    assert rejects == []
    assert [(t.id, t.instruction, t.response, t.judgment) for t in triplets] == [
        ("4", "2+2?", "5\n\n", "It is 4.")
    ]


def critiqued(answer: str, rating: int, *texts: str, **feedback: object) -> dict:
    critiques = [{"text": text, "refinement": "", "severity": 3} for text in texts]
    return {"answer": answer, "feedback": {"rating": rating, "critiques": critiques, **feedback}}


def test_summarization_takes_the_best_answer_and_joins_its_critiques(tmp_path, caplog):
    caplog.set_level("INFO")
    questions = [
        {
            "question": "Who?",
            "rankings": [1, 3, 2],
            "answers": [critiqued("A", 1, "x"), critiqued("B", 4, "Too short.", "Wrong."), critiqued("C", 7)],
        },
        {"question": "Why?", "rankings": [2], "answers": [critiqued("D", 7)]},
        {"question": "When?", "rankings": [1], "answers": [critiqued("E", 5)]},
        {"question": "Skipped?", "rankings": [1], "answers": [critiqued("F", 1, skip=True)]},
        {"question": "Empty?", "rankings": [1], "answers": [critiqued("", 1, "x")]},
        {"question": "Broken?", "rankings": [1, 2], "answers": [critiqued("G", 7)]},
    ]
    records = [
        {
            "id": "p0",
            "split": "train",
            "data": {"passage": {"title": None, "text": "Text."}, "questions": questions},
        },
        {"id": "p1", "data": {"passage": {"title": None}, "questions": []}},
    ]
    path = tmp_path / "train.jsonl.gz"
    path.write_bytes(gzip.compress("\n".join(map(json.dumps, records)).encode()))

    triplets, rejects = read_triplets(str(path))

    assert [(t.id, t.instruction, t.response, t.judgment) for t in triplets] == [
        ("p0.0", "Text.\nWho?", "B", "Too short. Wrong."),
        ("p0.1", "Text.\nWhy?", "D", None),
    ]
    assert [(r.line, r.reason) for r in rejects] == [
        (1, "no critique: the answer is rated 5, and only 7 means satisfactory (question 2)"),
        (1, 'wrong type: "rankings" needs one number for each of "answers" (question 5)'),
        (2, 'missing field: "data.passage.text"'),
    ]
    assert "2 answers marked as skipped, or empty" in caplog.text


def test_ultrafeedback_gives_a_row_for_each_completion(tmp_path):
    completions = [
        {"model": "a", "response": "One.", "critique": "Too short.", "overall_score": 3},
        {"model": "b", "response": "Two.", "critique": "Perfect.", "overall_score": 9},
        {"model": "c", "response": "", "critique": "Nothing there."},
        {"model": "d", "response": "Four."},
        "odd",
    ]
    records = [{"source": "flan", "instruction": "Count.", "models": [], "completions": completions}]
    triplets, rejects = read_triplets(write_json(tmp_path / "d.json", records))
    assert [(t.instruction, t.response, t.judgment) for t in triplets] == [
        ("Count.", "One.", "Too short."),
        ("Count.", "Two.", None),
    ]
    assert [r.kind for r in rejects] == ["empty response", "missing field", "wrong type"]


def test_a_format_is_told_by_its_fields_and_unknown_ones_are_named(tmp_path):
    path = write_jsonl(tmp_path / "d.jsonl", [{"prompt": "p", "completion": "c"}])
    with pytest.raises(DataError) as error:
        read_triplets(path)
    for text in ("completion, prompt", "data.format=columns", *FORMATS):
        assert text in str(error.value)


def test_a_format_that_does_not_exist_is_named_with_the_choices(tmp_path):
    with pytest.raises(DataError, match="data.format='alpacca': choose one of auto, cut_dist, alpaca"):
        read_triplets(write_jsonl(tmp_path / "d.jsonl", [row(1)]), format="alpacca")


def test_a_forced_format_rejects_rows_of_another(tmp_path):
    triplets, rejects = read_triplets(write_jsonl(tmp_path / "d.jsonl", [row(1)]), format="shepherd")
    assert triplets == []
    [reject] = rejects
    assert reject.reason.startswith('missing field: "question"; this row has: ')


# ---- the column map ----

COLUMNS = {"instruction": "prompt", "response": "text", "judgment": "verdict", "id": "key"}
TABLE = [
    {"key": "k1", "prompt": "Say 7.", "text": "007", "verdict": "Leading zeros,\nand late."},
    {"key": "k2", "prompt": "Say NA.", "text": "NA", "verdict": None},
    {"key": "k3", "prompt": "Say nothing.", "text": None, "verdict": None},
]


def check_table(triplets, rejects, places) -> None:
    assert [(t.id, t.response, t.judgment) for t in triplets] == [
        ("k1", "007", "Leading zeros,\nand late."),
        ("k2", "NA", None),
    ]
    assert [t.source for t in triplets] == places[:2]
    assert [(r.place, r.reason, r.id) for r in rejects] == [
        (places[2], 'wrong type: "text" is null, expected text', "k3")
    ]


def test_columns_of_jsonl(tmp_path):
    path = write_jsonl(tmp_path / "d.jsonl", TABLE)
    check_table(*read_triplets(path, format="columns", columns=COLUMNS), [f"{path}:{n}" for n in (1, 2, 3)])


@pytest.mark.parametrize(("suffix", "separator"), [("csv", ","), ("tsv", "\t")])
def test_columns_of_csv_keep_cells_as_text(tmp_path, suffix, separator):
    path = tmp_path / f"d.{suffix}"
    cells = ["key", "prompt", "text", "verdict"], ["k1", "Say 7.", "007", '"Leading zeros,\nand late."']
    lines = [*cells, ["k2", "Say NA.", "NA", ""], ["k3", "Say nothing.", "", ""]]
    path.write_text("\n".join(separator.join(line) for line in lines) + "\n")
    triplets, rejects = read_triplets(str(path), format="columns", columns=COLUMNS)
    check_table(triplets, rejects, [f"{path}:{n}" for n in (2, 4, 5)])


def test_csv_rows_that_do_not_fit_the_header_or_are_not_utf8_are_bad_rows(tmp_path):
    path = tmp_path / "d.csv"
    path.write_bytes(b"prompt,text,verdict\na,b,\na,b\na,b\xe9,\n")
    columns = {k: v for k, v in COLUMNS.items() if k != "id"}
    triplets, rejects = read_triplets(str(path), format="columns", columns=columns)
    assert len(triplets) == 1
    assert [(r.line, r.reason) for r in rejects] == [
        (3, "wrong number of cells: 2 under 3 headings"),
        (4, "not UTF-8: byte 0xe9 in the row"),
    ]
    path.write_text("prompt,prompt\na,b\n")
    with pytest.raises(DataError, match="same name"):
        read_triplets(str(path), format="columns", columns=columns)
    path.write_text('prompt,text,verdict\n"a,b,c\n')
    with pytest.raises(DataError, match="not a CSV file"):
        read_triplets(str(path), format="columns", columns=columns)


def test_a_csv_cell_may_be_long_and_the_processs_own_limit_is_never_lowered(tmp_path):
    limit = csv.field_size_limit()
    for length in (1, limit + 10):
        path = tmp_path / "d.csv"
        path.write_text(f"prompt,text,verdict\na,{'b' * length},\n")
        triplets, _ = read_triplets(str(path), format="columns", columns={**COLUMNS, "id": "prompt"})
        assert len(triplets[0].response) == length
        assert csv.field_size_limit() >= limit
    csv.field_size_limit(limit)


def test_columns_of_parquet(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    path = str(tmp_path / "d.parquet")
    pandas.DataFrame(TABLE).to_parquet(path)
    check_table(*read_triplets(path, format="columns", columns=COLUMNS), [f"{path}[{n}]" for n in (0, 1, 2)])


def test_columns_of_a_hub_data_set_ask_for_its_split_and_configuration(monkeypatch):
    asked = {}
    monkeypatch.setattr(datasets, "load_dataset", lambda **request: asked.update(request) or TABLE)
    result = read_triplets("org/name:main", format="columns", columns=COLUMNS, split="test")
    check_table(*result, [f"org/name:main[{n}]" for n in (0, 1, 2)])
    assert asked == {"path": "org/name", "name": "main", "split": "test"}


def test_what_datasets_cannot_load_is_one_sentence(monkeypatch, tmp_path):

    def refuse(**request):
        raise ConnectionError("no network\nlong trace")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(
        DataError, match=r"^org/name could not be loaded as a data set of the Hub, .*: no network$"
    ):
        read_triplets("org/name", format="columns", columns=COLUMNS)
    with pytest.raises(DataError, match="no such file"):
        read_triplets(str(tmp_path / "missing.parquet"), format="columns", columns=COLUMNS)
    with pytest.raises(DataError, match="not a name that the Hub could have"):
        read_triplets(str(tmp_path / "missing"), format="columns", columns=COLUMNS)


def test_a_missing_column_names_those_that_there_are(tmp_path):
    path = write_jsonl(tmp_path / "d.jsonl", TABLE)
    with pytest.raises(
        DataError,
        match="no column for data.columns.judgment: veredict; its columns are key, prompt, text, verdict",
    ):
        read_triplets(path, format="columns", columns={**COLUMNS, "judgment": "veredict"})


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (None, "need each other"),
        ({"instruction": "a", "response": "b"}, "needs the role 'judgment'"),
        ({**COLUMNS, "answer": "x"}, "has no role 'answer'"),
    ],
)
def test_a_column_map_that_cannot_be(tmp_path, columns, message):
    with pytest.raises(DataError, match=message):
        read_triplets(write_jsonl(tmp_path / "d.jsonl", TABLE), format="columns", columns=columns)
