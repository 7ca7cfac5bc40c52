"""The quickstart's triplets: valid, varied, both kinds, and held-out ones apart."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from cut_dist.data.readers import read_triplets

FOLDER = Path(__file__).resolve().parent.parent / "cut_dist" / "assets" / "quickstart"
FILES = {"train": FOLDER / "train.jsonl", "heldout": FOLDER / "heldout.jsonl"}


def rows_of(name: str) -> list[dict]:
    return [json.loads(line) for line in FILES[name].read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize(("name", "least"), [("train", 80), ("heldout", 16)])
def test_every_row_is_valid_and_both_kinds_are_there(name, least):
    triplets, rejects = read_triplets(str(FILES[name]))
    assert rejects == []
    assert len(triplets) == len(rows_of(name)) >= least
    negatives = sum(triplet.is_negative for triplet in triplets)
    assert negatives == sum(row["judgment"] is not None for row in rows_of(name))
    assert least // 4 <= negatives <= len(triplets) - least // 4


@pytest.mark.parametrize("name", FILES)
def test_rows_are_short_and_clean(name):
    for row in rows_of(name):
        assert list(row) == ["id", "instruction", "response", "judgment"], row["id"]
        assert len(row["instruction"].split()) <= 40, row["id"]
        assert len(row["response"].split()) <= 60, row["id"]
        for text in filter(None, (row["instruction"], row["response"], row["judgment"])):
            assert text == text.strip() and text.replace("\n", " ").isprintable(), row["id"]
        if row["judgment"] is not None:
            assert 5 <= len(row["judgment"].split()) <= 50, row["id"]
            assert not row["judgment"].startswith("Perfect."), row["id"]


def test_judgments_are_each_about_their_own_response():
    """A judgment quotes the response (or the word it is about); copies of one judgment would be careless."""
    rows = [row for name in FILES for row in rows_of(name) if row["judgment"] is not None]
    assert len({row["judgment"] for row in rows}) == len(rows)
    for row in rows:
        quotes = re.findall(r'"([^"]+)"', row["judgment"])
        context = f"{row['instruction']} {row['response']}".replace('"', "")
        assert any(quote.rstrip(".,") in context for quote in quotes) or not quotes, row["id"]
    assert sum('"' in row["judgment"] for row in rows) >= 0.9 * len(rows)


def test_heldout_rows_are_apart():
    train, heldout = rows_of("train"), rows_of("heldout")
    ids = [row["id"] for row in train + heldout]
    assert len(set(ids)) == len(ids)
    assert not {row["instruction"] for row in train} & {row["instruction"] for row in heldout}
    pairs = [(row["instruction"], row["response"]) for row in train]
    assert len(set(pairs)) == len(pairs)


def test_readme_counts_the_rows():
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    for name in FILES:
        rows = rows_of(name)
        negatives = sum(row["judgment"] is not None for row in rows)
        counts = f"({len(rows)} rows: {negatives} Align-N, {len(rows) - negatives} Align-P)"
        assert f"`{name}.jsonl` {counts}" in text
