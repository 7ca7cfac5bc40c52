"""The published formats of triplets: which field is what, and how one record becomes rows.

Where the field names come from:
    alpaca: the released CUT triplets (wwxu21/CUT, data/iter); `input` and `score` as its trainer reads them.
    shepherd: facebookresearch/Shepherd, data/human_data_for_model.jsonl.
    summarization: OpenAI's critiques (Saunders et al. 2022), critiques/train.jsonl.gz, in the structure
        that wwxu21/CUT scripts/convert2alpaca.py reads.
    ultrafeedback: openbmb/UltraFeedback, README and src/data_annotation/annotate_critique.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from cut_dist.data.triplets import REQUIRED_ROLES, RowError

Row = Mapping[str, object]
_SATISFACTORY_SCORE = 7  # wwxu21/CUT: a row with a score of 7 or more is Align-P whatever its judgment


@dataclass(frozen=True)
class Format:
    """How one kind of file becomes triplets.

    Attributes:
        columns: role to field name, of the rows that `expand` yields.
        marks: field names that tell this format from the others.
        expand: rows of one record; yields a RowError for a row it can't make and None for one that the data
            set itself marks as not to be used. None: the record is the row.
    """

    columns: Mapping[str, str]
    marks: tuple[str, ...] = ()
    expand: Callable[[dict], Iterator[Row | RowError | None]] | None = None


def _alpaca_rows(record: dict) -> Iterator[Row]:
    score = record.get("score")
    is_satisfactory = isinstance(score, (int, float)) and score >= _SATISFACTORY_SCORE
    yield {**record, "judgment": None} if is_satisfactory else record


def _summarization_rows(record: dict) -> Iterator[Row | RowError | None]:
    """One row for each question: its highest-ranked answer, the texts of all its critiques joined by a space.

    An answer without critiques is rated 7 and is Align-P; one that the annotators skipped, or that is empty,
    is no row.
    """
    try:
        passage = _nested(record, "data.passage.text", str)
        questions = _nested(record, "data.questions", list)
    except RowError as error:
        yield error
        return
    for number, question in enumerate(questions):
        try:
            row = _summarization_row(passage, question)
        except RowError as error:
            yield RowError(f"{error} (question {number})")
            continue
        if row is not None and record.get("id") is not None:
            row["id"] = f"{record['id']}.{number}"
        yield row


def _summarization_row(passage: str, question: object) -> dict[str, object] | None:
    text = _nested(question, "question", str)
    answers, rankings = _nested(question, "answers", list), _nested(question, "rankings", list)
    if len(answers) != len(rankings) or not all(isinstance(rank, (int, float)) for rank in rankings):
        raise RowError('wrong type: "rankings" needs one number for each of "answers"')
    if not answers:
        return None
    best = answers[rankings.index(max(rankings))]
    answer, feedback = _nested(best, "answer", str), _nested(best, "feedback", dict)
    if feedback.get("skip") is True or not answer.strip():
        return None
    critiques = feedback.get("critiques") or []
    if not isinstance(critiques, list):
        raise RowError('wrong type: "feedback.critiques" is not a list')
    if not critiques and feedback.get("rating") != 7:
        rating = feedback.get("rating")
        raise RowError(f"no critique: the answer is rated {rating}, and only 7 means satisfactory")
    judgment = (
        " ".join(_nested(critique, "text", str) for critique in critiques).strip() if critiques else None
    )
    # what people made of the answer after the last critique
    refinement = critiques[-1].get("refinement") if critiques else None
    return {"instruction": f"{passage}\n{text}", "response": answer, "judgment": judgment, "refinement": refinement}


def _ultrafeedback_rows(record: dict) -> Iterator[Row | RowError]:
    """One row for each completion. Its critique decides: `overall_score` is not read.

    The published critiques praise and blame in one breath; the paper found them harmful as they are and had
    the responses judged again (section 6 there), which gives critiques that are null, "Perfect." or negative.
    """
    try:
        completions = _nested(record, "completions", list)
    except RowError as error:
        yield error
        return
    for number, completion in enumerate(completions):
        if not isinstance(completion, dict):
            yield RowError(f'wrong type: "completions[{number}]" is not an object')
            continue
        yield {name: record[name] for name in ("instruction",) if name in record} | completion


def _nested(value: object, path: str, kind: type) -> object:
    """The value at a dotted path of a record, checked for its type."""
    for name in path.split("."):
        if not isinstance(value, dict) or name not in value:
            raise RowError(f'missing field: "{path}"')
        value = value[name]
    if not isinstance(value, kind):
        raise RowError(f'wrong type: "{path}" is not {"text" if kind is str else f"a {kind.__name__}"}')
    return value


_OWN = {role: role for role in (*REQUIRED_ROLES, "id", "refinement")}
FORMATS: dict[str, Format] = {
    "cut_dist": Format(_OWN, ("instruction", "response")),
    "alpaca": Format(
        {**_OWN, "input": "input", "response": "output"},
        ("instruction", "output"),
        _alpaca_rows,
    ),
    "shepherd": Format(
        {"instruction": "question", "response": "answer", "judgment": "feedback", "id": "id"},
        ("question", "answer", "feedback"),
    ),
    "summarization": Format(_OWN, ("data",), _summarization_rows),
    "ultrafeedback": Format(
        {"instruction": "instruction", "response": "response", "judgment": "critique"},
        ("instruction", "completions"),
        _ultrafeedback_rows,
    ),
}
