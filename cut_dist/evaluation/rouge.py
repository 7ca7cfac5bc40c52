"""Suite `rouge`: ROUGE on the test split of the summarization critiques (the paper's Table 3).

One instruction a question: the passage and the question, as in training. What an answer is compared with, by
`evaluation.rouge_reference`:

refinement   what people made of the highest-ranked answer after their critiques (the last critique's, as in the
             `i_ans` of wwxu21/CUT scripts/convert2alpaca.py), or the answer itself where they had nothing to criticise
answer       the highest-ranked answer as it is

The paper does not say which it took; nor whether words were stemmed (here they are not, as by default in rouge-score).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Literal

from cut_dist.config_check import ConfigError
from cut_dist.data.formats import FORMATS
from cut_dist.data.records import read_json_records
from cut_dist.data.triplets import DataError, RowError
from cut_dist.online.records import Instruction, Response

log = logging.getLogger(__name__)

Reference = Literal["refinement", "answer"]
SCORES = {"rouge1": "R1", "rouge2": "R2", "rougeL": "RL", "rougeLsum": "RLsum"}


def read_instructions(path: str, reference: Reference, *, skip_bad: bool = False) -> list[Instruction]:
    """The questions of the test split that have a reference, which is their metadata.

    Raises:
        DataError: no such file, no reference in it, or, unless `skip_bad`, rows that are not in the critiques' format.
    """
    rows, problems = [], []
    for place, record in enumerate(read_json_records(path), 1):
        found = FORMATS["summarization"].expand(record.fields) if record.fields else [RowError(record.problem)]
        for number, row in enumerate(found):
            if isinstance(row, RowError):
                problems.append(f"{record.source}: {row}")
            elif row is not None and (text := _reference(row, reference)):
                rows.append(Instruction(f"critiques-{place:05}.{number}", row["instruction"], {"reference": text}))
    if problems:
        more = f"\n  and {len(problems) - 10} more" if len(problems) > 10 else ""
        said = f"{path} has rows that are no summarization critiques:\n  " + "\n  ".join(problems[:10]) + more
        if not skip_bad:
            raise DataError(f"{said}\ndata.on_bad_row=skip leaves them out")
        log.warning("left out: %s", said)
    if not rows:
        raise DataError(f"{path} has no question with a reference ({reference})")
    return rows


def score(responses: Sequence[Response]) -> dict[str, Any]:
    """Mean F1 in percent: `R1`, `R2`, `RL`, `RLsum`; `answers`, and how many of them were `truncated`.

    Raises:
        ConfigError: rouge-score is not installed.
    """
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError as error:
        raise ConfigError("The suite rouge needs rouge-score: pip install 'cut-dist[eval]'.") from error
    scorer = RougeScorer(list(SCORES), use_stemmer=False)
    each = [scorer.score(response.metadata["reference"], response.response) for response in responses]
    means = {short: 100 * sum(scores[name].fmeasure for scores in each) / len(each) for name, short in SCORES.items()}
    truncated = sum(response.finish_reason == "length" for response in responses)
    return {**means, "answers": len(each), "truncated": truncated}


def _reference(row: dict[str, Any], reference: Reference) -> str:
    corrected = reference == "refinement" and row["judgment"] is not None
    text = row["refinement"] if corrected else row["response"]
    return text.strip() if isinstance(text, str) else ""
