"""The laboratory's tokenizer: one token a word, in Hugging Face format, which cut_dist takes as any other."""

from __future__ import annotations

import re
import string
from functools import cache

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from cut_dist.data import templates
from cut_dist.study import judgments, world

UNKNOWN, ANSWER = "<unk>", "<answer>"
# The model's turn begins at <answer>: prompts are `template: chat`.
CHAT_TEMPLATE = "{{ messages[0]['content'] }} " + ANSWER
INSTRUCTION_WORDS = "sort reverse add to number replace by in join with copy descend next"


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Words of the world and its judgments; each fixed piece of text of a prompt template is one token.

    The pieces are long sentences that say nothing here, and would be most of each prompt.
    """
    pieces = _template_pieces()
    vocabulary = [UNKNOWN, world.END, ANSWER, *pieces.values(), *_words()]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token=UNKNOWN))
    longest_first = sorted(pieces, key=len, reverse=True)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Replace(Regex(re.escape(piece)), f" {pieces[piece]} ") for piece in longest_first]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token=UNKNOWN, eos_token=world.END, pad_token=world.END,
        additional_special_tokens=[ANSWER], clean_up_tokenization_spaces=False,
    )  # fmt: skip
    wrapped.chat_template = CHAT_TEMPLATE
    return wrapped


@cache
def _words() -> list[str]:
    forms = [*judgments.PRECISE, *judgments.POSITION, *judgments.VAGUE, *judgments.LENGTH, *judgments.PRAISE]
    said = {word for form in forms for word in form.split() if not word.startswith("{")}
    symbols = [*world.DIGITS, *world.LETTERS, "+", "-", ","]
    rest = said | {*judgments.ORDINALS, *judgments.NUMBERS, *INSTRUCTION_WORDS.split()}
    return symbols + sorted(rest - set(symbols))


def _template_pieces() -> dict[str, str]:
    """Fixed text of the prompt templates → its token."""
    found = {}
    texts = {"judged": templates.CHAT_JUDGMENT, "judge": templates.JUDGE_TASK, "refine": templates.REFINE_TASK}
    for name, template in texts.items():
        fixed = [text for text, *_ in string.Formatter().parse(template) if text.strip()]
        found |= {text.strip(): f"[{name}{i}]" for i, text in enumerate(fixed) if text.strip() not in found}
    return found
