"""The tasks under the checks: short requests of several forms, about topics of one split only."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Literal

from cut_dist.verifiable import topics
from cut_dist.verifiable.base import Task
from cut_dist.verifiable.checks.answer_words import WORDS

Split = Literal["train", "heldout"]
SPLITS: tuple[Split, ...] = ("train", "heldout")

# Of each form: the wordings of both splits, then those that only the held-out split uses.
_WORDINGS = {
    "prose": (
        (
            "Write something about {topic}.",
            "Describe {topic}.",
            "Write about {topic}.",
            "Tell a story about {topic}.",
            "Tell a child about {topic}.",
            "What comes to mind when you think of {topic}?",
        ),
        ("Share a few thoughts on {topic}.", "Say something nice about {topic}."),
    ),
    "letter": (
        (
            "Write a letter to a friend about {topic}.",
            "Write an email to a neighbour about {topic}.",
            "Write a message to a teacher about {topic}.",
        ),
        ("Write a note to an aunt about {topic}.",),
    ),
    "points": (
        (
            "Collect some ideas about {topic}.",
            "What should a child know about {topic}?",
            "Note some thoughts about {topic}.",
        ),
        ("What is there to say about {topic}?",),
    ),
    "short": (
        (
            "Suggest a title for a story about {topic}.",
            "Write a slogan about {topic}.",
            "Write a caption for a photo of {topic}.",
            "Give a name to a song about {topic}.",
        ),
        ("Write a headline about {topic}.",),
    ),
    "colour": (
        ("Choose a colour that suits {topic}.", "Which colour goes well with {topic}?"),
        ("Pick a colour for a picture of {topic}.",),
    ),
    "list": (
        ("Name some {topic}.", "List some {topic}.", "Give examples of {topic}.", "Which {topic} can you think of?"),
        ("Think of some {topic}.",),
    ),
    "record": (
        ("Invent {topic}.", "Make up {topic}.", "Describe {topic} that does not exist."),
        ("Imagine {topic}.",),
    ),
}


def draw_task(rng: random.Random, form: str, split: Split) -> Task:
    """A task of a form. Its topic belongs to the split, except for the forms "choice" and "answer", which have none."""
    if form == "answer":
        return Task(form, "")
    if form == "choice":
        return rng.choice(_CHOICES)(rng)
    known, new = _WORDINGS[form]
    wording = rng.choice(known + new if split == "heldout" else known)
    if form == "list":
        things = topics.HELDOUT_THINGS if split == "heldout" else topics.TRAIN_THINGS
        return Task(form, wording.format(topic=rng.choice(things)))
    if form == "record":
        records = topics.HELDOUT_RECORDS if split == "heldout" else topics.TRAIN_RECORDS
        name = rng.choice(list(records))
        return Task(form, wording.format(topic=name), keys=records[name])
    topic = rng.choice(topics.HELDOUT_TOPICS if split == "heldout" else topics.TRAIN_TOPICS)
    return Task(form, wording.format(topic=topic.name), words=topic.words)


def _compare_numbers(rng: random.Random) -> Task:
    first, second = rng.sample(range(1, 200), 2)
    larger = rng.random() < 0.5
    answer = max(first, second) if larger else min(first, second)
    options = (str(first), str(second))
    word = "larger" if larger else "smaller"
    return Task("choice", f"Which number is {word}, {first} or {second}?", options=options, answer=str(answer))


def _is_even(rng: random.Random) -> Task:
    number, even = rng.randint(1, 200), rng.random() < 0.5
    answer = "yes" if (number % 2 == 0) == even else "no"
    return Task("choice", f"Is {number} an {'even' if even else 'odd'} number?", options=("yes", "no"), answer=answer)


def _longer_word(rng: random.Random) -> Task:
    first, second = rng.sample(WORDS, 2)
    while len(first) == len(second):
        second = rng.choice(WORDS)
    answer, text = max(first, second, key=len), f'Which word is longer, "{first}" or "{second}"?'
    return Task("choice", text, options=(first, second), answer=answer)


def _earlier_word(rng: random.Random) -> Task:
    first, second = rng.sample(WORDS, 2)
    text = f'Which word comes first in the alphabet, "{first}" or "{second}"?'
    return Task("choice", text, options=(first, second), answer=min(first, second))


def _has_letter(rng: random.Random) -> Task:
    word, letter = rng.choice(WORDS), rng.choice("aeiourstln")
    answer = "yes" if letter in word else "no"
    return Task("choice", f'Does "{word}" contain the letter "{letter}"?', options=("yes", "no"), answer=answer)


_CHOICES: tuple[Callable[[random.Random], Task], ...] = (
    _compare_numbers,
    _is_even,
    _longer_word,
    _earlier_word,
    _has_letter,
)
