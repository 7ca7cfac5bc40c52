"""Triplets to examples: tokenised in batches, over-long ones trimmed, those without sound tokens rejected."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from cut_dist.data.examples import Example
from cut_dist.data.templates import (
    Tokenizer,
    build_judge_replies,
    build_prompts,
    build_responses,
    context_judgments,
    control_strings,
    count_tokens,
    judge_reply,
    render_judge_prompt,
    render_prompt,
    tokenize_prompts,
)
from cut_dist.data.triplets import DataError, Reject, Triplet


@dataclass(frozen=True)
class EncodingRules:
    """The part of the data config that decides what becomes of one triplet.

    Attributes:
        template: key of `cut_dist.data.templates.TEMPLATES`.
        fake_judgment: positive judgment of the fake context; the praise that a judge learns for Align-P.
        max_length: most tokens of prompt and response together, in the longest context.
        max_judgment_tokens: most tokens of a judgment.
        trims_overlong: take text off the beginning of the instruction where that makes a triplet fit.
        objective: "cut", or "judge": one context, an AI judge's prompt with instruction and response, and as the
            response to learn the judgment with the decision; or "hindsight": one context, the prompt with the judgment
            where the triplet has one.
    """

    template: str
    fake_judgment: str
    max_length: int
    max_judgment_tokens: int
    trims_overlong: bool
    objective: str = "cut"


@dataclass
class Encoded:
    """Examples in the order of the triplets, and what is not among them: bad rows and rows too long."""

    examples: list[Example] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    overlong: list[Reject] = field(default_factory=list)
    num_trimmed: int = 0


def encode_triplets(tokenizer: Tokenizer, triplets: Sequence[Triplet], rules: EncodingRules) -> Encoded:
    """Tokenise triplets.

    A triplet is rejected when its response has no tokens, its judgment has too many, or its text makes
    control tokens. One that is longer than `max_length` loses the beginning of its instruction
    (`trims_overlong`) or is dropped; its judgment and response stay whole.

    Raises:
        DataError: the fake judgment is no usable text, or the tokenizer lacks EOS or a chat template.
    """
    encoded = Encoded()
    guard = _ControlTokens(tokenizer, rules)
    sound = []
    for triplet, reason in zip(triplets, _text_problems(tokenizer, triplets, rules, guard), strict=True):
        if reason:
            encoded.rejects.append(Reject.of(triplet, reason))
        else:
            sound.append(triplet)
    responses = _build_all_responses(tokenizer, sound, rules)
    prompts = build_contexts(tokenizer, sound, rules)
    for triplet, response, contexts in zip(sound, responses, prompts, strict=True):
        reason = guard.find_in_ids(response, contexts)
        if len(response) == 1:
            reason = "response without tokens: nothing is left of it but EOS"
        if reason:
            encoded.rejects.append(Reject.of(triplet, reason))
            continue
        length = _length(contexts, response)
        if length > rules.max_length:
            trimmed = _trim(tokenizer, triplet, len(response), rules) if rules.trims_overlong else None
            if trimmed is None:
                encoded.overlong.append(Reject.of(triplet, _overlong_reason(length, rules)))
                continue
            contexts = trimmed
            encoded.num_trimmed += 1
        ids = {name: np.asarray(prompt, dtype=np.int32) for name, prompt in contexts.items()}
        encoded.examples.append(
            Example(triplet.id, triplet.is_negative, ids, np.asarray(response, dtype=np.int32))
        )
    return encoded


def _text_problems(
    tokenizer: Tokenizer, triplets: Sequence[Triplet], rules: EncodingRules, guard: _ControlTokens
) -> list[str | None]:
    """For each triplet, what its text is rejected for before any prompt is made of it."""
    lengths = iter(count_tokens(tokenizer, [t.judgment for t in triplets if t.judgment is not None]))
    problems = []
    for triplet in triplets:
        problem = guard.find_in_text(triplet.instruction, "instruction")
        if rules.objective == "judge":  # it stands in the prompt
            problem = problem or guard.find_in_text(triplet.response, "response")
        if triplet.judgment is not None:
            problem = problem or guard.find_in_text(triplet.judgment, "judgment")
            length = next(lengths)
            if length > rules.max_judgment_tokens:
                limit = f"data.max_judgment_tokens is {rules.max_judgment_tokens}"
                problem = problem or f"judgment too long: {length} tokens, {limit}"
        problems.append(problem)
    return problems


def build_contexts(
    tokenizer: Tokenizer, triplets: Sequence[Triplet], rules: EncodingRules
) -> list[dict[str, list[int]]]:
    """Prompt ids of each context of each triplet, untrimmed, in one call of the tokenizer."""
    texts = [_prompt_texts(tokenizer, triplet, rules) for triplet in triplets]
    ids = iter(tokenize_prompts(tokenizer, rules.template, [text for each in texts for text in each.values()]))
    return [{name: next(ids) for name in each} for each in texts]


def _prompt_texts(tokenizer: Tokenizer, triplet: Triplet, rules: EncodingRules) -> dict[str, str]:
    if rules.objective == "judge":
        prompt = render_judge_prompt(tokenizer, rules.template, triplet.instruction, triplet.response)
        return {"instruction": prompt}
    if rules.objective == "hindsight":
        return {"instruction": render_prompt(tokenizer, rules.template, triplet.instruction, triplet.judgment)}
    return {
        name: render_prompt(tokenizer, rules.template, triplet.instruction, judgment)
        for name, judgment in context_judgments(triplet.judgment, rules.fake_judgment).items()
    }


def _build_all_responses(
    tokenizer: Tokenizer, triplets: Sequence[Triplet], rules: EncodingRules
) -> list[list[int]]:
    if rules.objective == "judge":
        replies = [judge_reply(triplet.judgment, rules.fake_judgment) for triplet in triplets]
        return build_judge_replies(tokenizer, replies, rules.template)
    return build_responses(tokenizer, [triplet.response for triplet in triplets], rules.template)


def _trim(
    tokenizer: Tokenizer, triplet: Triplet, response_length: int, rules: EncodingRules
) -> dict[str, list[int]] | None:
    """Prompts with the shortest beginning of the instruction taken off that makes every context fit, or None.

    The instruction is cut as text and each prompt tokenised anew, so all contexts still have the same
    instruction and a prompt is what the tokenizer makes of it. Length is all but monotone in the cut, so
    bisection finds it in few tries.
    """

    def prompts(cut: int) -> dict[str, list[int]]:
        kept = replace(triplet, instruction=triplet.instruction[cut:])
        return build_contexts(tokenizer, [kept], rules)[0]

    def fits(cut: int) -> bool:
        return max(map(len, prompts(cut).values())) + response_length <= rules.max_length

    end = len(triplet.instruction)
    cut = bisect_left(range(end), True, key=fits)
    while cut < end and not fits(cut):
        cut += 1
    return prompts(cut) if triplet.instruction[cut:].strip() else None


def _length(contexts: dict[str, list[int]], response: list[int]) -> int:
    return max(map(len, contexts.values())) + len(response)


def _overlong_reason(length: int, rules: EncodingRules) -> str:
    tried = ", and no shorter instruction makes it fit" if rules.trims_overlong else ""
    return f"over-long: {length} tokens of prompt and response, data.max_length is {rules.max_length}{tried}"


class _ControlTokens:
    """Finds control tokens that came from the data: in the text before tokenising, in the ids after it."""

    def __init__(self, tokenizer: Tokenizer, rules: EncodingRules) -> None:
        self._strings = control_strings(tokenizer, rules.template)
        # The unknown token is special too, but any odd character makes it.
        self._names = dict(zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=True))
        added = tokenizer.added_tokens_decoder
        self._names |= {i: token.content for i, token in added.items() if token.special}
        self._names.pop(tokenizer.unk_token_id, None)
        if not rules.fake_judgment.strip() or self.find_in_text(rules.fake_judgment, "fake judgment"):
            raise DataError(
                f"objective.fake_judgment={rules.fake_judgment!r} must be visible text without control tokens"
            )
        frame = build_prompts(tokenizer, rules.template, "text", None, rules.fake_judgment)["instruction"]
        self._frame = self._controls(frame)

    def find_in_text(self, text: str, role: str) -> str | None:
        """A reason that names the first control string of the chat template in a text, or None."""
        found = next((string for string in self._strings if string in text), None)
        return found and f'control token: "{found}" in the {role}'

    def find_in_ids(self, response: list[int], contexts: dict[str, list[int]]) -> str | None:
        """A reason that names a control token beyond those that template and EOS bring, or None.

        Catches what the text does not show, such as a normaliser that makes a token of look-alike letters.
        """
        in_response = self._controls(response[:-1])
        if in_response:
            return f'control token: "{self._names[in_response[0]]}" is made by the response\'s text'
        for prompt in contexts.values():
            controls = self._controls(prompt)
            if controls != self._frame:
                new = [self._names[i] for i in controls if controls.count(i) > self._frame.count(i)]
                what = f'"{new[0]}" is made by' if new else "one of the template's is lost in"
                return f"control token: {what} the prompt's text"
        return None

    def _controls(self, ids: list[int]) -> list[int]:
        return [i for i in ids if i in self._names]
