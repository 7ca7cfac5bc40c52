"""Prompts of the three contexts, as text and as token ids, and the response's ids, the same in all three.
The AI judge's prompt too, whose reply takes the response's place.

Context      Conditions on                                   Align-P   Align-N
instruction  the instruction                                 yes       yes
authentic    the instruction and the negative judgment       no        yes
fake         the instruction and a fake positive judgment    no        yes

Prompt and response are tokenised apart and joined by ids. Text from the data never becomes a control token:
it is tokenised with `split_special_tokens`, and where a chat template writes control tokens of its own around
the text, rows that contain one are refused beforehand (`control_strings`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cut_dist.data.triplets import DataError

Tokenizer = Any  # a Hugging Face tokenizer, fast or slow

# Word for word from the paper (figures 5 and 6). Align-P, the instruction context and inference share one.
ALPACA_INSTRUCTION = (
    "Below is an instruction that describes a task. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Response:\n"
)
ALPACA_JUDGMENT = (
    "Below is an instruction that describes a task. "
    "Write a response to the instruction and the response should match the corresponding judgment.\n\n"
    "### Instruction:\n{instruction}\n\n### Judgment:\n{judgment}\n\n### Response:\n"
)
# The one user turn under `template: chat` where there is a judgment; without one it is the bare instruction.
CHAT_JUDGMENT = (
    "{instruction}\n\nWrite a response to the instruction above that matches the following judgment.\n\n"
    "### Judgment:\n{judgment}"
)
# Word for word from the paper (figure 9): what an AI judge is asked. It replies "{judgment} Yes." or "{judgment} No.".
JUDGE_TASK = (
    "Below is an instruction-response pair. Write a judgment to evaluate the quality of this response. "
    "Then reply with 'Yes.' or 'No.' to show your decision on whether the response is perfect.\n\n"
    "### Instruction: {instruction}\n\n### Response: {response}"
)
# What a model is asked to make a response better by its judgment; the paper gives no words for it.
REFINE_TASK = (
    "Below is an instruction, a response to it, and a judgment of that response. "
    "Write an improved response to the instruction that no longer has the faults that the judgment names. "
    "Reply with the improved response only.\n\n"
    "Instruction: {instruction}\n\nResponse: {response}\n\nJudgment: {judgment}"
)
JUDGE_REPLY_HEAD = "\n\n### Judgment:"  # under `template: chat` the assistant's turn stands for it

_NEUTRAL = "text"
_MARKER = re.compile(r"<<[^<>\s]+>>|<[^<>\s]+>|\[/?\w+\]")  # <|im_start|>, </s>, <<SYS>>, [INST]


@dataclass(frozen=True)
class Template:
    """How a prompt is written and tokenised.

    Attributes:
        render: (tokenizer, instruction, judgment or None) to the prompt's text.
        render_judge: (tokenizer, instruction, response) to the text of an AI judge's prompt.
        writes_control_tokens: the text has control tokens in it (a chat template's), so they are recognised
            when it is tokenised and none are added; otherwise none are recognised and the tokenizer adds its
            BOS, if it has one.
    """

    render: Callable[[Tokenizer, str, str | None], str]
    render_judge: Callable[[Tokenizer, str, str], str]
    writes_control_tokens: bool


def _render_alpaca(tokenizer: Tokenizer, instruction: str, judgment: str | None) -> str:
    template = ALPACA_INSTRUCTION if judgment is None else ALPACA_JUDGMENT
    return template.format(instruction=instruction, judgment=judgment)


def _render_chat(tokenizer: Tokenizer, instruction: str, judgment: str | None) -> str:
    content = instruction
    if judgment is not None:
        content = CHAT_JUDGMENT.format(instruction=instruction, judgment=judgment)
    return _user_turn(tokenizer, content)


def _judge_alpaca(tokenizer: Tokenizer, instruction: str, response: str) -> str:
    return JUDGE_TASK.format(instruction=instruction, response=response) + JUDGE_REPLY_HEAD


def _judge_chat(tokenizer: Tokenizer, instruction: str, response: str) -> str:
    return _user_turn(tokenizer, JUDGE_TASK.format(instruction=instruction, response=response))


def _user_turn(tokenizer: Tokenizer, content: str) -> str:
    if not tokenizer.chat_template:
        raise DataError("data.template=chat, but the tokenizer has no chat template; use alpaca")
    # Without date_string Llama 3's templates write today's date: other tokens tomorrow for the same data.
    return tokenizer.apply_chat_template(
        [{"role": "user", "content": content}],
        tokenize=False,
        add_generation_prompt=True,
        date_string="26 Jul 2024",
    )


TEMPLATES: Mapping[str, Template] = {
    "alpaca": Template(_render_alpaca, _judge_alpaca, writes_control_tokens=False),
    "chat": Template(_render_chat, _judge_chat, writes_control_tokens=True),
}


def context_judgments(judgment: str | None, fake_judgment: str) -> dict[str, str | None]:
    """Which judgment each context of an example conditions on; Align-P (judgment None) has one context."""
    if judgment is None:
        return {"instruction": None}
    return {"instruction": None, "authentic": judgment, "fake": fake_judgment}


def render_prompt(tokenizer: Tokenizer, template: str, instruction: str, judgment: str | None = None) -> str:
    """The text of one prompt, up to the response; with a judgment that of the authentic or fake context."""
    return _template(template).render(tokenizer, instruction, judgment)


def render_judge_prompt(tokenizer: Tokenizer, template: str, instruction: str, response: str) -> str:
    """The text of an AI judge's prompt, up to the judgment that it replies with."""
    return _template(template).render_judge(tokenizer, instruction, response)


def judge_reply(judgment: str | None, praise: str) -> str:
    """What an AI judge should reply: the judgment, then "No."; where there is none `praise`, then "Yes."."""
    return f"{praise.strip()} Yes." if judgment is None else f"{judgment.strip()} No."


def tokenize_prompts(tokenizer: Tokenizer, template: str, prompts: Sequence[str]) -> list[list[int]]:
    """Token ids of rendered prompts, each tokenised as one string, with BOS where the tokenizer puts one."""
    if not prompts:
        return []
    writes_control_tokens = _template(template).writes_control_tokens
    batch = tokenizer(
        list(prompts),
        add_special_tokens=not writes_control_tokens,
        split_special_tokens=not writes_control_tokens,
        verbose=False,  # longer than the model's maximum is data.max_length's business
    )["input_ids"]
    return batch if writes_control_tokens else [_without_eos(ids, tokenizer.eos_token_id) for ids in batch]


def build_prompts(
    tokenizer: Tokenizer, template: str, instruction: str, judgment: str | None, fake_judgment: str
) -> dict[str, list[int]]:
    """Prompt token ids of each context of one example.

    Args:
        tokenizer: a Hugging Face tokenizer.
        template: a key of `TEMPLATES`.
        instruction: the task.
        judgment: the negative judgment, or None for Align-P.
        fake_judgment: the positive judgment of the fake context.

    Returns:
        Ids under "instruction" and, where there is a judgment, "authentic" and "fake".
    """
    judgments = context_judgments(judgment, fake_judgment)
    prompts = [render_prompt(tokenizer, template, instruction, j) for j in judgments.values()]
    return dict(zip(judgments, tokenize_prompts(tokenizer, template, prompts), strict=True))


def build_responses(
    tokenizer: Tokenizer, responses: Sequence[str], template: str = "alpaca"
) -> list[list[int]]:
    """Token ids of responses as they stand after any prompt of a template, EOS at the end.

    Tokenizers of the SentencePiece kind put a space before a text that they see alone; after a prompt that
    ends in a newline none belongs there. So the response is tokenised behind a newline, whose own tokens are
    taken off again.

    Raises:
        DataError: the tokenizer has no EOS token, so a response could not end.
    """
    lead = "\n" if render_prompt(tokenizer, template, _NEUTRAL).endswith("\n") else ""
    return _build_behind(tokenizer, responses, lead)


def build_judge_replies(
    tokenizer: Tokenizer, replies: Sequence[str], template: str = "alpaca"
) -> list[list[int]]:
    """Token ids of an AI judge's replies as they stand after its prompt, EOS at the end.

    Behind "### Judgment:" they begin with the space that figure 9 has there.

    Raises:
        DataError: the tokenizer has no EOS token.
    """
    prompt = render_judge_prompt(tokenizer, template, _NEUTRAL, _NEUTRAL)
    if prompt.endswith(JUDGE_REPLY_HEAD):
        return _build_behind(tokenizer, [f" {reply}" for reply in replies], JUDGE_REPLY_HEAD[-1])
    return _build_behind(tokenizer, replies, "\n" if prompt.endswith("\n") else "")


def _build_behind(tokenizer: Tokenizer, responses: Sequence[str], lead: str) -> list[list[int]]:
    """Token ids of texts as they stand behind `lead`, EOS at the end."""
    if tokenizer.eos_token_id is None:
        raise DataError("the tokenizer has no EOS token, which ends every response; set its eos_token")
    lead_ids = _encode(tokenizer, [lead])[0] if lead else []
    built = _encode(tokenizer, [lead + text for text in responses])
    for number, ids in enumerate(built):
        if ids[: len(lead_ids)] == lead_ids:
            built[number] = ids[len(lead_ids) :]
        else:  # the lead merged with the response's first characters
            built[number] = _encode(tokenizer, [responses[number]])[0]
    return [[*ids, tokenizer.eos_token_id] for ids in built]


def count_tokens(tokenizer: Tokenizer, texts: Sequence[str]) -> list[int]:
    """Number of tokens of each text by itself, without BOS and EOS."""
    return [len(ids) for ids in _encode(tokenizer, texts)]


def control_strings(tokenizer: Tokenizer, template: str) -> list[str]:
    """Strings that a prompt's instruction or judgment must not contain, the longest first.

    None for a template without control tokens (the text is split, so it can't make one). For a chat template:
    all special tokens, the added tokens that the template mentions, and the markers it writes as plain text
    ([INST]).
    """
    if not _template(template).writes_control_tokens:
        return []
    frame = render_prompt(tokenizer, template, _NEUTRAL)
    added = tokenizer.added_tokens_decoder.values()
    strings = {
        token.content for token in added if token.special or token.content in str(tokenizer.chat_template)
    }
    strings |= {*tokenizer.all_special_tokens, *_MARKER.findall(frame)}
    return sorted((text for text in strings if text.strip()), key=lambda text: (-len(text), text))


def _template(name: str) -> Template:
    if name not in TEMPLATES:
        raise DataError(f"data.template={name!r}: choose one of {', '.join(TEMPLATES)}")
    return TEMPLATES[name]


def _encode(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    if not texts:
        return []  # tokenizers refuse an empty batch
    batch = tokenizer(list(texts), add_special_tokens=False, split_special_tokens=True, verbose=False)
    return batch["input_ids"]


def _without_eos(ids: list[int], eos: int | None) -> list[int]:
    end = len(ids)
    while end and ids[end - 1] == eos:
        end -= 1
    return ids[:end]
