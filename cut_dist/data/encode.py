"""Triplets to examples: tokenised in batches, over-long ones trimmed, those without sound tokens rejected."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from cut_dist.data.examples import Example
from cut_dist.data.objectives import NO_REFINEMENT, OBJECTIVES, Prompts
from cut_dist.data.templates import (
    Tokenizer,
    build_judge_replies,
    build_prompts,
    build_responses,
    control_strings,
    count_tokens,
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
        objective: key of `cut_dist.data.objectives.OBJECTIVES`.
    """

    template: str
    fake_judgment: str
    max_length: int
    max_judgment_tokens: int
    trims_overlong: bool
    objective: str = "cut"


@dataclass
class Encoded:
    """Examples in the order of the triplets, and what is not among them: bad rows, rows too long, and rows that
    the objective has no use for (`num_left_out`)."""

    examples: list[Example] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    overlong: list[Reject] = field(default_factory=list)
    num_trimmed: int = 0
    num_left_out: int = 0


def encode_triplets(tokenizer: Tokenizer, triplets: Sequence[Triplet], rules: EncodingRules) -> Encoded:
    """Tokenise triplets.

    A triplet is rejected when its response has no tokens, its judgment has too many, it lacks the refinement that
    the objective needs, or its text makes control tokens. One that is longer than `max_length` loses the beginning of
    its instruction (`trims_overlong`) or is dropped; its judgment and response stay whole.

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
    for triplet, terms in zip(sound, encode_terms(tokenizer, sound, rules), strict=True):
        if not terms:
            encoded.num_left_out += 1
            continue
        reason = guard.find_in_ids(terms)
        if any(len(term.reply) == 1 for term in terms):
            reason = "response without tokens: nothing is left of it but EOS"
        if reason:
            encoded.rejects.append(Reject.of(triplet, reason))
            continue
        length = _length(terms)
        if length > rules.max_length:
            terms = _trim(tokenizer, triplet, rules) if rules.trims_overlong else None
            if terms is None:
                encoded.overlong.append(Reject.of(triplet, _overlong_reason(length, rules)))
                continue
            encoded.num_trimmed += 1
        encoded.examples.append(_example(triplet, terms, rules))
    return encoded


def _example(triplet: Triplet, terms: list[TermIds], rules: EncodingRules) -> Example:
    # verdicts have their own contexts under CUT alone; other objectives learn all their rows alike
    is_negative = triplet.is_negative and rules.objective in ("cut", "judge")
    made = []
    for term in terms:
        prompts = {name: np.asarray(prompt, dtype=np.int32) for name, prompt in term.prompts.items()}
        made.append(Example(triplet.id, is_negative, prompts, np.asarray(term.reply, dtype=np.int32)))
    return replace(made[0], also=tuple(made[1:]))


def _text_problems(
    tokenizer: Tokenizer, triplets: Sequence[Triplet], rules: EncodingRules, guard: _ControlTokens
) -> list[str | None]:
    """For each triplet, what its text is rejected for before any prompt is made of it."""
    lengths = iter(count_tokens(tokenizer, [t.judgment for t in triplets if t.judgment is not None]))
    objective, problems = OBJECTIVES[rules.objective], []
    for triplet in triplets:
        problem = guard.find_in_text(triplet.instruction, "instruction")
        if objective.reads_response:
            problem = problem or guard.find_in_text(triplet.response, "response")
        if objective.needs_refinement and triplet.is_negative and triplet.refinement is None:
            problem = problem or NO_REFINEMENT
        if triplet.judgment is not None:
            problem = problem or guard.find_in_text(triplet.judgment, "judgment")
            length = next(lengths)
            if length > rules.max_judgment_tokens:
                limit = f"data.max_judgment_tokens is {rules.max_judgment_tokens}"
                problem = problem or f"judgment too long: {length} tokens, {limit}"
        problems.append(problem)
    return problems


class TermIds(NamedTuple):
    """`Term` as token ids: the prompt of each context, and the reply with EOS."""

    prompts: dict[str, list[int]]
    reply: list[int]


def encode_terms(
    tokenizer: Tokenizer, triplets: Sequence[Triplet], rules: EncodingRules
) -> list[list[TermIds]]:
    """Token ids of what the objective learns of each triplet, untrimmed, in few calls of the tokenizer."""
    prompts = Prompts(tokenizer, rules.template, rules.fake_judgment)
    terms = [OBJECTIVES[rules.objective].terms(triplet, prompts) for triplet in triplets]
    flat = [term for each in terms for term in each]
    texts = [text for term in flat for text in term.prompts.values()]
    prompt_ids = iter(tokenize_prompts(tokenizer, rules.template, texts))
    responses = [term.reply for term in flat if not term.follows_judge_prompt]
    judgments = [term.reply for term in flat if term.follows_judge_prompt]
    reply_ids = {
        False: iter(build_responses(tokenizer, responses, rules.template)),
        True: iter(build_judge_replies(tokenizer, judgments, rules.template)),
    }
    return [
        [TermIds({name: next(prompt_ids) for name in term.prompts}, next(reply_ids[term.follows_judge_prompt]))
         for term in each]
        for each in terms
    ]  # fmt: skip


def _trim(tokenizer: Tokenizer, triplet: Triplet, rules: EncodingRules) -> list[TermIds] | None:
    """Terms with the shortest beginning of the instruction taken off that makes every context fit, or None.

    The instruction is cut as text and each prompt tokenised anew, so all contexts still have the same
    instruction and a prompt is what the tokenizer makes of it. Length is all but monotone in the cut, so
    bisection finds it in few tries.
    """

    def terms(cut: int) -> list[TermIds]:
        return encode_terms(tokenizer, [replace(triplet, instruction=triplet.instruction[cut:])], rules)[0]

    def fits(cut: int) -> bool:
        return _length(terms(cut)) <= rules.max_length

    end = len(triplet.instruction)
    cut = bisect_left(range(end), True, key=fits)
    while cut < end and not fits(cut):
        cut += 1
    return terms(cut) if triplet.instruction[cut:].strip() else None


def _length(terms: Sequence[TermIds]) -> int:
    return max(len(prompt) + len(term.reply) for term in terms for prompt in term.prompts.values())


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

    def find_in_ids(self, terms: Sequence[TermIds]) -> str | None:
        """A reason that names a control token beyond those that template and EOS bring, or None.

        Catches what the text does not show, such as a normaliser that makes a token of look-alike letters.
        """
        in_reply = [control for term in terms for control in self._controls(term.reply[:-1])]
        if in_reply:
            return f'control token: "{self._names[in_reply[0]]}" is made by the response\'s text'
        for prompt in (prompt for term in terms for prompt in term.prompts.values()):
            controls = self._controls(prompt)
            if controls != self._frame:
                new = [self._names[i] for i in controls if controls.count(i) > self._frame.count(i)]
                what = f'"{new[0]}" is made by' if new else "one of the template's is lost in"
                return f"control token: {what} the prompt's text"
        return None

    def _controls(self, ids: list[int]) -> list[int]:
        return [i for i in ids if i in self._names]
