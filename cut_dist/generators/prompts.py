"""From requests to the prompts that training uses, as token ids, with what can't be asked refused before any work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cut_dist.data.templates import Tokenizer, control_strings, render_prompt, tokenize_prompts
from cut_dist.data.triplets import DataError
from cut_dist.generators.base import GenerationRequest
from cut_dist.wording import counted

_NAMED = 5


def prompt_ids(tokenizer: Tokenizer, template: str, requests: Sequence[GenerationRequest]) -> list[list[int]]:
    """Token ids of each request's prompt, the same as in training.

    Raises:
        DataError: an instruction holds control tokens of the chat template; the message names the responses.
    """
    strings = control_strings(tokenizer, template)
    found = {r.id: next((text for text in strings if text in r.instruction), None) for r in requests}
    bad = {id: f'"{text}"' for id, text in found.items() if text is not None}
    _refuse(bad, "control tokens of the chat template in the instruction", "take them out, or use data.template=alpaca")
    return tokenize_prompts(tokenizer, template, [render_prompt(tokenizer, template, r.instruction) for r in requests])


def require_room(lengths: Mapping[str, int], max_new_tokens: int, limit: int | None, key: str) -> None:
    """Refuse prompts that leave no room for `max_new_tokens` within the model's `limit` of positions.

    Args:
        lengths: tokens of each prompt, by id.
        max_new_tokens: of a reply.
        limit: None where the model has none.
        key: the configuration's key of `max_new_tokens`, for the message.

    Raises:
        DataError: naming the prompts.
    """
    bad = {id: f"{n} tokens" for id, n in lengths.items() if limit is not None and n + max_new_tokens > limit}
    why = f"too long for {key}={max_new_tokens} more within the model's {limit} positions"
    _refuse(bad, why, f"lower {key}, or leave these instructions out")


def _refuse(bad: Mapping[str, str], why: str, remedy: str) -> None:
    if bad:
        named = ", ".join(f"{id} ({what})" for id, what in list(bad.items())[:_NAMED])
        more = f" and {len(bad) - _NAMED:,} more" if len(bad) > _NAMED else ""
        raise DataError(f"{counted(len(bad), 'prompt')}, {why}: {named}{more}; {remedy}")
