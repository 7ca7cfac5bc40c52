"""How an objective turns a triplet into what is learned: one short function each.

Of a triplet (x, y, j), ŷ a refinement of y by j:

objective            terms of an Align-N row                      of an Align-P row
cut                  y in three contexts                          y after x
judge                "j No." after the AI judge's prompt          "<praise> Yes." after it
sft                  none, left out                               y after x
hindsight            y after x and j                              y after x
forward_prediction   y after x, j after x and y                   the same with the praise as j
ilf_mle              ŷ after x                                    y after x
ilf_dpo              ŷ (chosen) and y (rejected), each after x    none, left out
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cut_dist.data.templates import Tokenizer, context_judgments, judge_reply, render_judge_prompt, render_prompt
from cut_dist.data.triplets import Triplet

NO_REFINEMENT = "no refinement"  # the kind of reject that launch/refine.py remedies


@dataclass(frozen=True)
class Term:
    """A text to learn in one or more contexts.

    Attributes:
        prompts: context name to the prompt's text.
        reply: what follows each of them.
        follows_judge_prompt: the prompt is an AI judge's (figure 9), and the reply a judgment.
    """

    prompts: dict[str, str]
    reply: str
    follows_judge_prompt: bool = False


@dataclass(frozen=True)
class Prompts:
    """Writes prompts by the rules of the data: `template`, and what stands for praise."""

    tokenizer: Tokenizer
    template: str
    praise: str

    def respond(self, triplet: Triplet, reply: str, judgment: str | None = None) -> Term:
        """`reply` after the instruction, and after a judgment if there is one."""
        prompt = render_prompt(self.tokenizer, self.template, triplet.instruction, judgment)
        return Term({"instruction": prompt}, reply)

    def judge(self, triplet: Triplet, reply: str) -> Term:
        """`reply` after the AI judge's prompt."""
        prompt = render_judge_prompt(self.tokenizer, self.template, triplet.instruction, triplet.response)
        return Term({"instruction": prompt}, reply, follows_judge_prompt=True)


def _cut(triplet: Triplet, prompts: Prompts) -> list[Term]:
    contexts = context_judgments(triplet.judgment, prompts.praise)
    written = {name: prompts.respond(triplet, "", each).prompts["instruction"] for name, each in contexts.items()}
    return [Term(written, triplet.response)]


def _judge(triplet: Triplet, prompts: Prompts) -> list[Term]:
    return [prompts.judge(triplet, judge_reply(triplet.judgment, prompts.praise))]


def _sft(triplet: Triplet, prompts: Prompts) -> list[Term]:
    return [] if triplet.is_negative else [prompts.respond(triplet, triplet.response)]


def _hindsight(triplet: Triplet, prompts: Prompts) -> list[Term]:
    return [prompts.respond(triplet, triplet.response, triplet.judgment)]


def _forward_prediction(triplet: Triplet, prompts: Prompts) -> list[Term]:
    judgment = (triplet.judgment or prompts.praise).strip()
    return [prompts.respond(triplet, triplet.response), prompts.judge(triplet, judgment)]


def _ilf_mle(triplet: Triplet, prompts: Prompts) -> list[Term]:
    return [prompts.respond(triplet, triplet.refinement if triplet.is_negative else triplet.response)]


def _ilf_dpo(triplet: Triplet, prompts: Prompts) -> list[Term]:
    if not triplet.is_negative:
        return []
    return [prompts.respond(triplet, triplet.refinement), prompts.respond(triplet, triplet.response)]


@dataclass(frozen=True)
class Objective:
    """What sets an objective's data apart.

    Attributes:
        terms: of a triplet; none where the objective has no use for it.
        measured_as: the objective whose examples are held out. All but the judge are measured in CUT's contexts, on
            the same rows, so that their numbers can be compared.
        reads_response: the response stands in a prompt.
        needs_refinement: Align-N rows need one.
    """

    terms: Callable[[Triplet, Prompts], list[Term]]
    measured_as: str = "cut"
    reads_response: bool = False
    needs_refinement: bool = False


OBJECTIVES: Mapping[str, Objective] = {
    "cut": Objective(_cut),
    "judge": Objective(_judge, measured_as="judge", reads_response=True),
    "sft": Objective(_sft),
    "hindsight": Objective(_hindsight),
    "forward_prediction": Objective(_forward_prediction, reads_response=True),
    "ilf_mle": Objective(_ilf_mle, needs_refinement=True),
    "ilf_dpo": Objective(_ilf_dpo, needs_refinement=True),
}


def is_measured_apart(name: str) -> bool:
    """Whether training examples of this objective differ from those that are held out to measure."""
    return OBJECTIVES[name].measured_as != name
