"""Instructions that a program can check, and judgments in plain words of what a response does wrong: no model, no cost.

`make_instructions` gives the instructions, `judge` a verdict on a response, `accuracy` the four numbers of a set.
docs/verifiable.md lists the kinds of checks.
"""

from cut_dist.verifiable.accuracy import Accuracy, KindAccuracy, accuracy, accuracy_of
from cut_dist.verifiable.base import Check, Problem
from cut_dist.verifiable.files import read_instructions, write_instructions
from cut_dist.verifiable.generate import MAX_CHECKS, make_instructions
from cut_dist.verifiable.judging import VerifiableVerdict, judge
from cut_dist.verifiable.registry import KINDS, CheckError, make_check, make_checks

__all__ = [
    "KINDS",
    "MAX_CHECKS",
    "Accuracy",
    "Check",
    "CheckError",
    "KindAccuracy",
    "Problem",
    "VerifiableVerdict",
    "accuracy",
    "accuracy_of",
    "judge",
    "make_check",
    "make_checks",
    "make_instructions",
    "read_instructions",
    "write_instructions",
]
