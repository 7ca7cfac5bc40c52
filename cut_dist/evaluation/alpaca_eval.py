"""Suite `alpaca_eval`: answers to AlpacaEval's instructions, in the form that its tool takes, and the tool's command.

The tool asks a paid judge and pins packages of its own, so it is run by its user, in an environment of its own.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cut_dist import durable
from cut_dist.data.records import Record, read_json_records
from cut_dist.data.triplets import DataError
from cut_dist.online.records import Instruction, Response

OUTPUTS = "alpaca_eval.json"
_KEYS = ("dataset", "instruction", "output", "generator")
_FIRST_REFERENCE = "text_davinci_003"  # whose outputs AlpacaEval 1, the paper's, compares with


def read_instructions(path: str) -> list[Instruction]:
    """The instructions of AlpacaEval's own JSON file, with what else a row says as metadata.

    Raises:
        DataError: no such file, or a row that is not one of AlpacaEval's; all bad rows are named.
    """
    rows, problems = [], []
    for number, record in enumerate(read_json_records(path), 1):
        problem = _problem(record)
        if problem:
            problems.append(f"{record.source}: {problem}")
        else:
            known = {key: record.fields[key] for key in _KEYS if key in record.fields and key != "instruction"}
            rows.append(Instruction(f"alpaca_eval-{number:04}", record.fields["instruction"], known))
    if problems:
        more = f"\n  and {len(problems) - 10} more" if len(problems) > 10 else ""
        raise DataError(f"{path} is not AlpacaEval's set of instructions:\n  " + "\n  ".join(problems[:10]) + more)
    return rows


def hand_over(responses: Sequence[Response], name: str, reference: str, folder: Path) -> dict[str, Any]:
    """Write `alpaca_eval.json` for the tool.

    Args:
        responses: to the instructions of `read_instructions`.
        name: of the model on the tool's leaderboard.
        reference: AlpacaEval's file that the instructions are from; its outputs are what the tool compares with.
        folder: where to write.

    Returns:
        `file`, `command`, `answers`, and `truncated`: how many ended at the limit of tokens.
    """
    target = folder / OUTPUTS
    rows = [
        {
            "dataset": response.metadata.get("dataset", "alpaca_eval"),
            "instruction": response.instruction,
            "output": response.response,
            "generator": name,
        }
        for response in responses
    ]
    durable.replace_file(target, json.dumps(rows, indent=2).encode())
    truncated = sum(response.finish_reason == "length" for response in responses)
    command = tool_command(target, reference, responses)
    return {"file": str(target), "command": command, "answers": len(rows), "truncated": truncated}


def tool_command(outputs: Path, reference: str, responses: Sequence[Response]) -> str:
    """What to type for the score: version 1 (the paper's) where the reference is text-davinci-003, else version 2."""
    is_first = any(response.metadata.get("generator") == _FIRST_REFERENCE for response in responses)
    version, annotator = ("False", "alpaca_eval_gpt4") if is_first else ("True", "weighted_alpaca_eval_gpt4_turbo")
    files = ["--model_outputs", str(outputs), "--reference_outputs", reference]
    return f"IS_ALPACA_EVAL_2={version} " + shlex.join(["alpaca_eval", *files, "--annotators_config", annotator])


def _problem(record: Record) -> str | None:
    if record.fields is None:
        return record.problem
    text = record.fields.get("instruction")
    if not isinstance(text, str) or not text.strip():
        return 'it has no "instruction"'
    # Version 1 joins none, and an answer to half of the question would count against the model.
    return 'its "input" is not part of the instruction; join the two' if record.fields.get("input") else None
