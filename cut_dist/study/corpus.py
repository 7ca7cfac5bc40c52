"""What the laboratory's base model is pretrained on: skill, bad habits, answers that fit a judgment in the prompt."""

from __future__ import annotations

import random
from collections.abc import Iterator

from cut_dist.data import templates
from cut_dist.study import judgments
from cut_dist.study.world import Item, Symbols, draw, slip

HABIT_RATE = 0.9  # of items with a habit's trigger, where nothing is said of a judgment
SLIP_RATE = 0.05  # of all other items
JUDGED_SHARE = 0.45  # rows with a judgment in the prompt
REFINED_SHARE = 0.1  # rows that ask for a better answer, with a wrong one and its judgment in the prompt (ILF's step)
REFINED_BY: dict[judgments.Quality, float] = {"precise": 0.5, "position": 0.15, "vague": 0.15, "wrong": 0.2}
PRAISED_SHARE = 0.35  # of those: a right answer and praise


def corpus(seed: int, rows: int) -> Iterator[dict]:
    """Rows of {id, instruction, response, judgment} for `objective=hindsight`; judgment None: the plain prompt.

    Praise is written as a judgment too, in other words than "Perfect.", for the model must know it as a condition.
    """
    rng = random.Random(f"corpus {seed}")
    for i in range(rows):
        item = draw(rng)
        kind = rng.random()
        if kind < JUDGED_SHARE:
            yield row(f"{seed}-{i}", item, *_judged(rng, item))
        elif kind < JUDGED_SHARE + REFINED_SHARE:
            yield _refined(rng, f"{seed}-{i}", item)
        else:
            yield row(f"{seed}-{i}", item, plain_answer(rng, item), None)


def plain_answer(rng: random.Random, item: Item) -> Symbols:
    """An answer as the base model is to give it: by habit, else right but for a slip now and then."""
    if item.habit and rng.random() < HABIT_RATE:
        return item.habit
    return slip(rng, item.answer, 1) if rng.random() < SLIP_RATE else item.answer


def wrong_answer(rng: random.Random, item: Item) -> Symbols:
    return item.habit if item.habit and rng.random() < 0.5 else slip(rng, item.answer, rng.randint(1, 3))


def refine_request(instruction: str, response: Symbols, judgment: str) -> str:
    """What launch/refine.py asks (`REFINE_TASK`), for the laboratory's texts."""
    return templates.REFINE_TASK.format(instruction=instruction, response=" ".join(response), judgment=judgment)


def row(id: str, item: Item, response: Symbols, judgment: str | None) -> dict:
    return {"id": id, "instruction": item.instruction, "response": " ".join(response), "judgment": judgment}


def _judged(rng: random.Random, item: Item) -> tuple[Symbols, str]:
    if rng.random() < PRAISED_SHARE:
        return item.answer, judgments.praise(rng)
    response = wrong_answer(rng, item)
    return response, judgments.judge(rng, response, item.answer, judgments.draw_quality(rng))


def _refined(rng: random.Random, id: str, item: Item) -> dict:
    """A refinement that goes by its judgment: it does what that says, be it wrong; told nothing of how, it is an answer
    like any other.

    Were it always right, the request alone would bring out the right answer, and ILF would need no judgments.
    """
    response, quality = wrong_answer(rng, item), judgments.draw_quality(rng, REFINED_BY)
    if quality in ("precise", "wrong"):
        claims = judgments.claims(rng, response, item.answer, quality)
        judgment, refined = judgments.worded(rng, claims), list(response)
        for place, _, right in claims:
            refined[place] = right
    else:
        judgment = judgments.judge(rng, response, item.answer, quality)
        refined = plain_answer(rng, item)
    return row(id, item, refined, None) | {"instruction": refine_request(item.instruction, response, judgment)}
