"""What is shown of one example, as plain values that the terminal and the page both render."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cut_dist.config import Config, PreviewJobConfig
from cut_dist.data.encode import encode_terms
from cut_dist.data.examples import Example
from cut_dist.data.objectives import OBJECTIVES
from cut_dist.data.packing import CONTRASTS
from cut_dist.data.prepare import encoding_rules
from cut_dist.data.templates import Tokenizer
from cut_dist.data.triplets import Triplet
from cut_dist.objective_options import encoding
from cut_dist.preview.tokens import split_control, token_texts

_CONDITIONS = {  # objective → what its one context conditions on, where that is not the instruction alone
    "judge": "the instruction and the response to judge",
    "hindsight": "the instruction and its judgment, if it is negative",
    "ilf_mle": "the instruction alone, for the refinement of an Align-N response",
    "ilf_dpo": "the instruction alone, for the refinement, which is preferred",
}
_PAIR_LOSS = "loss −log σ of how much more than at the start it is preferred"

if TYPE_CHECKING:
    from cut_dist.preview.measure import Measured  # brings the model's code, which a look at the data needs not


@dataclass(frozen=True)
class Token:
    """One response token; what follows `entry` is None without a model.

    Attributes:
        position: counted from 1.
        text: what it adds to the response; "" where it ends inside a character.
        entry: its name in the vocabulary.
        is_eos: whether it is the end that the trainer put behind the response.
        logp: log p(y|x) in nats.
        loss: L1 + L2 of this token, not yet divided by the number of tokens.
        logp_authentic, logp_contrast: log p⁻ and log p⁺; None for Align-P.
        weight: α·(p⁻)^γ where the token is inappropriate, else None.
    """

    position: int
    id: int
    text: str
    entry: str
    is_eos: bool
    logp: float | None = None
    loss: float | None = None
    logp_authentic: float | None = None
    logp_contrast: float | None = None
    weight: float | None = None

    @property
    def inappropriate(self) -> bool:
        return self.weight is not None

    @property
    def difference(self) -> float | None:
        """log p⁻ − log p⁺, or None where there is no contrast."""
        return None if self.logp_authentic is None else self.logp_authentic - self.logp_contrast

    @property
    def facts(self) -> dict[str, str]:
        """Its numbers by the name a reader knows them by."""
        facts = {}
        if self.logp is not None:
            facts["p(x)"] = f"{math.exp(self.logp):.3g}"
        if self.logp_authentic is not None:
            facts["p⁻"] = f"{math.exp(self.logp_authentic):.3g}"
            facts["p⁺"] = f"{math.exp(self.logp_contrast):.3g}"
            facts["p⁻/p⁺"] = f"{_exp(self.difference):.3g}"
        if self.weight is not None:
            facts["w = α·(p⁻)^γ"] = f"{self.weight:.3g}"
        if self.loss is not None:
            facts["loss"] = f"{self.loss:.3g}"
        return facts


@dataclass(frozen=True)
class Context:
    """One context: the prompt as text with its control tokens apart, and which tokens carry loss in it."""

    name: str
    conditions_on: str
    prompt: list[tuple[str, bool]]
    prompt_tokens: int
    response_tokens: int
    loss: str


@dataclass(frozen=True)
class View:
    """One example as it is shown.

    Attributes:
        is_negative: whether the judge found the response wanting.
        kind: what that makes of it, for a reader.
        place: where the trainer meets it, and the weight of each of its response tokens there.
        verdict: losses and the share of inappropriate tokens, a sentence; "" without a model.
        notes: what was changed about the row.
    """

    id: str
    is_negative: bool
    kind: str
    source: str
    instruction: str
    judgment: str | None
    place: str
    contexts: list[Context]
    tokens: list[Token]
    verdict: str
    notes: list[str]


def view_example(
    example: Example, triplet: Triplet, place: str, measured: Measured | None, cfg: PreviewJobConfig,
    tokenizer: Tokenizer,
) -> View:  # fmt: skip
    """Gather what is shown of one example.

    Args:
        example: as the trainer gets it.
        triplet: the row that it was made from.
        place: see `View`.
        measured: the same example through the model, if there is one.
    """
    tokens = _tokens(example, measured, cfg, tokenizer)
    return View(
        id=example.id,
        is_negative=triplet.is_negative,
        kind=_kind(triplet, cfg),
        source=near(triplet.source),
        instruction=triplet.instruction,
        judgment=triplet.judgment,
        place=place,
        contexts=_contexts(example, tokens, cfg, tokenizer),
        tokens=tokens,
        verdict="" if measured is None else _verdict(measured),
        notes=_notes(example, triplet, cfg, tokenizer),
    )


def _kind(triplet: Triplet, cfg: Config) -> str:
    if cfg.objective.name == "judge":
        return "judged “No.”" if triplet.is_negative else "judged “Yes.”"
    return "Align-N" if triplet.is_negative else "Align-P"


def _tokens(example: Example, measured: Measured | None, cfg: PreviewJobConfig, tokenizer: Tokenizer) -> list[Token]:
    ids = example.response_ids.tolist()
    texts = token_texts(tokenizer, ids[:-1], before=example.prompt_ids["instruction"].tolist())
    texts.append(tokenizer.decode(ids[-1:], skip_special_tokens=False))
    entries = tokenizer.convert_ids_to_tokens(ids)
    last = len(ids) - 1
    tokens = []
    for i, (id, text, entry) in enumerate(zip(ids, texts, entries, strict=True)):
        numbers = {} if measured is None else _numbers(measured, i, cfg)
        tokens.append(Token(i + 1, id, text, str(entry), i == last, **numbers))
    return tokens


def _numbers(measured: Measured, i: int, cfg: Config) -> dict[str, float]:
    record = measured.record
    numbers = {"logp": record.logp[i], "loss": measured.loss_instruction[i] + measured.loss_authentic[i]}
    if record.is_negative:
        numbers |= {"logp_authentic": record.logp_authentic[i], "logp_contrast": record.logp_fake[i]}
    if record.inappropriate[i]:
        numbers["weight"] = cfg.objective.alpha * math.exp(cfg.objective.gamma * record.logp_authentic[i])
    return {name: float(value) for name, value in numbers.items()}


def _contexts(example: Example, tokens: Sequence[Token], cfg: PreviewJobConfig, tokenizer: Tokenizer) -> list[Context]:
    contrast = cfg.objective.contrast
    conditions = {
        "instruction": _CONDITIONS.get(_shown_as(cfg), "the instruction alone"),
        "authentic": "the instruction and the negative judgment j⁻",
        "fake": f"the instruction and the fake judgment j⁺ “{cfg.objective.fake_judgment}”",
    }
    losses = {
        "instruction": _PAIR_LOSS if _shown_as(cfg) == "ilf_dpo" else _instruction_loss(example, tokens),
        "authentic": "loss −log p⁻ on every response token",
        "fake": "no loss: p⁺ only tells which tokens are inappropriate",
    }
    if _shown_as(cfg) == "cut" and contrast == "instruction":
        conditions["instruction"] += ", which stands for j⁺ too"
    names = CONTRASTS[contrast] if example.is_negative else ("instruction",)
    return [
        Context(
            name=name,
            conditions_on=conditions[name],
            prompt=split_control(tokenizer, example.prompt_ids[name].tolist()),
            prompt_tokens=len(example.prompt_ids[name]),
            response_tokens=len(tokens),
            loss=losses[name],
        )
        for name in names
    ]


def _instruction_loss(example: Example, tokens: Sequence[Token]) -> str:
    if not example.is_negative:
        return "loss −log p on every response token"
    if tokens[0].logp is None:
        return "loss −log p on the response tokens, −w·log(1 − p) on those that a model finds inappropriate"
    inappropriate = sum(token.inappropriate for token in tokens)
    learned = len(tokens) - inappropriate
    return f"loss −log p on {learned} response tokens, −w·log(1 − p) on the {inappropriate} inappropriate ones"


def _verdict(measured: Measured) -> str:
    record = measured.record
    parts = [f"loss {record.loss:.3f}"]
    if record.is_negative:
        l1, l2 = measured.loss_instruction.mean(), measured.loss_authentic.mean()
        parts[0] += f" = {l1:.3f} instruction + {l2:.3f} authentic"
        found, total = int(record.inappropriate.sum()), len(record.inappropriate)
        parts.append(f"{found} of {total} tokens inappropriate ({found / total:.0%})")
    return "; ".join(parts)


def _notes(example: Example, triplet: Triplet, cfg: PreviewJobConfig, tokenizer: Tokenizer) -> list[str]:
    rules = encoding_rules(cfg.data, cfg.objective.fake_judgment, _shown_as(cfg))
    [terms] = encode_terms(tokenizer, [triplet], rules)
    whole = terms[0].prompts
    longest = max(len(prompt) + len(term.reply) for term in terms for prompt in term.prompts.values())
    missing = len(whole["instruction"]) - len(example.prompt_ids["instruction"])
    notes = [_also(term, cfg, tokenizer) for term in example.also]
    if whole["instruction"] != example.prompt_ids["instruction"].tolist():
        notes.append(
            f"trimmed: the first {missing} tokens of the instruction are gone, since the longest context took "
            f"{longest} tokens and data.max_length is {cfg.data.max_length}"
        )
    return notes


def _shown_as(cfg: PreviewJobConfig) -> str:
    """The objective whose examples are shown: what is held out is measured in CUT's contexts, whatever is trained."""
    own = encoding(cfg.objective)
    return own if cfg.preview.split == "train" else OBJECTIVES[own].measured_as


def _also(term: Example, cfg: PreviewJobConfig, tokenizer: Tokenizer) -> str:
    what = "rejected for the response below" if cfg.objective.name == "ilf_dpo" else "learned in the same example"
    text = tokenizer.decode(term.response_ids.tolist(), skip_special_tokens=True)
    prompt = tokenizer.decode(term.prompt_ids["instruction"].tolist(), skip_special_tokens=True)
    return f"{what}: “{text}” after “…{prompt[-60:]}”"


def near(path: str) -> str:
    """A path as it is seen from here, where it lies below; a Hub name or a place elsewhere stays as it is."""
    here = f"{Path.cwd()}/"
    return path.removeprefix(here)


def _exp(difference: float) -> float:
    return math.exp(min(difference, 700.0))  # beyond, a float overflows
