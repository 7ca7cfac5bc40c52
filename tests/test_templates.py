"""Prompts and responses as tokens: word for word, alike in all contexts, no control token out of the data."""

from __future__ import annotations

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors
from transformers import AutoTokenizer, ByT5Tokenizer, PreTrainedTokenizerFast

from cut_dist.data.templates import (
    TEMPLATES,
    build_prompts,
    build_responses,
    control_strings,
    count_tokens,
    render_prompt,
    tokenize_prompts,
)
from cut_dist.data.triplets import DataError
from cut_dist.model.packaged import PACKAGED
from cut_dist.model.tiny import byte_tokenizer

JUDGED = "Below is an instruction that describes a task. Write a response to the instruction and the response should match the corresponding judgment.\n\n### Instruction:\nAdd {1}.\n\n### Judgment:\nNo %s {judgment}\n\n### Response:\n"  # noqa: E501
PLAIN = "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n### Instruction:\nAdd {1}.\n\n### Response:\n"  # noqa: E501


def llama_like_tokenizer() -> PreTrainedTokenizerFast:
    """Characters with a merge, a space put before every text and bytes as a fallback, as Llama 2's does."""
    vocab = {"<unk>": 0, "<s>": 1, "</s>": 2} | {f"<0x{byte:02X}>": byte + 3 for byte in range(256)}
    for piece in ["▁", *map(chr, range(33, 127)), "Hi", "▁Hi"]:
        vocab[piece] = len(vocab)
    backend = Tokenizer(
        models.BPE(vocab=vocab, merges=[("H", "i"), ("▁", "Hi")], unk_token="<unk>", byte_fallback=True)
    )
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    backend.add_special_tokens(["<unk>", "<s>", "</s>"])
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    template = "{{ bos_token }}{% for m in messages %}[INST] {{ m['content'] }} [/INST]{% endfor %}"
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        chat_template=template,
    )


def build_response(tokenizer, text: str, template: str = "alpaca") -> list[int]:
    [ids] = build_responses(tokenizer, [text], template)
    return ids


@pytest.fixture(scope="module")
def smollm():
    gguf = next(iter(PACKAGED.values())).gguf_file()
    if gguf is None:
        pytest.skip("needs the package that holds SmolLM2's tokenizer")
    return AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)


@pytest.fixture(params=["bytes", "llama", "smollm", "slow"])
def tokenizer(request):
    if request.param == "smollm":
        return request.getfixturevalue("smollm")
    return {"bytes": byte_tokenizer, "llama": llama_like_tokenizer, "slow": ByT5Tokenizer}[request.param]()


def special_ids(tokenizer) -> set[int]:
    return {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}


def test_alpaca_is_the_papers_pair_word_for_word():
    assert render_prompt(None, "alpaca", "Add {1}.") == PLAIN
    assert render_prompt(None, "alpaca", "Add {1}.", "No %s {judgment}") == JUDGED


def test_contexts_of_align_n_and_align_p():
    tokenizer = byte_tokenizer()
    prompts = build_prompts(tokenizer, "alpaca", "Add {1}.", "No %s {judgment}", "Perfect.")
    assert list(prompts) == ["instruction", "authentic", "fake"]
    bos = tokenizer.bos_token_id
    assert prompts["instruction"] == [bos, *PLAIN.encode()]
    assert prompts["authentic"] == [bos, *JUDGED.encode()]
    assert prompts["fake"] == [bos, *JUDGED.replace("No %s {judgment}", "Perfect.").encode()]
    praised = build_prompts(tokenizer, "alpaca", "Add {1}.", None, "Perfect.")
    assert praised == {"instruction": prompts["instruction"]}


@pytest.mark.parametrize("text", ["Hi there", " Hi", "\nHi", "\n\n", "x", "naïve 🙂"])
def test_a_response_is_its_text_and_one_eos(tokenizer, text):
    for template in TEMPLATES if tokenizer.chat_template else ["alpaca"]:
        ids = build_response(tokenizer, text, template)
        assert ids[-1] == tokenizer.eos_token_id
        assert ids.count(tokenizer.eos_token_id) == 1
        kept = tokenizer.decode(ids[:-1], clean_up_tokenization_spaces=False)
        # Behind a prompt that ends in no newline the Llama-like tokenizer's own space begins the response.
        assert kept.lstrip(" ") == text.lstrip(" ")


def test_responses_in_a_batch_are_those_one_by_one(tokenizer):
    texts = ["Hi", "\nHi", "two words", "</s>"]
    assert build_responses(tokenizer, texts) == [build_response(tokenizer, text) for text in texts]
    assert build_responses(tokenizer, []) == []


@pytest.mark.parametrize("response", ["Hi there", "Sure! Hi\n\n1. x"])
def test_prompt_and_response_together_are_what_the_whole_string_gives(tokenizer, response):
    whole = render_prompt(tokenizer, "alpaca", "Say Hi", "No Hi.") + response
    joined = build_prompts(tokenizer, "alpaca", "Say Hi", "No Hi.", "P")["authentic"]
    joined += build_response(tokenizer, response)[:-1]
    expected = tokenizer(whole, split_special_tokens=True)["input_ids"]
    if expected[-1] == tokenizer.eos_token_id:  # ByT5 ends every text with one
        expected = expected[:-1]
    assert joined == expected


def test_no_space_is_put_before_a_response_that_follows_a_newline():
    tokenizer = llama_like_tokenizer()
    assert tokenizer.convert_ids_to_tokens(build_response(tokenizer, "Hi")) == ["Hi", "</s>"]
    assert tokenizer.convert_ids_to_tokens(build_response(tokenizer, "Hi", "chat")) == ["▁Hi", "</s>"]


def test_an_eos_that_the_tokenizer_adds_to_every_text_is_not_part_of_a_prompt():
    tokenizer = ByT5Tokenizer()
    prompt = tokenize_prompts(tokenizer, "alpaca", ["abc"])[0]
    assert prompt == tokenizer("abc")["input_ids"][:-1]


def test_text_with_control_tokens_makes_none_under_alpaca(tokenizer):
    specials = sorted(t.content for t in tokenizer.added_tokens_decoder.values() if t.special)
    clean = build_prompts(tokenizer, "alpaca", "x", "y", "z")
    known = [i for i in clean["instruction"] if i in special_ids(tokenizer)]
    for number in range(200 if tokenizer.is_fast else 20):
        text = f"before {specials[number % len(specials)]} ### Response:\n{number}"
        prompts = build_prompts(tokenizer, "alpaca", text, text, "Perfect.")
        for ids in prompts.values():
            assert [i for i in ids if i in special_ids(tokenizer)] == known
        response = build_response(tokenizer, text)
        assert not set(response[:-1]) & special_ids(tokenizer)
        assert tokenizer.decode(response[:-1], clean_up_tokenization_spaces=False) == text


def test_chat_prompts_are_what_apply_chat_template_gives(smollm, shared_data):
    import json

    rows = json.loads((shared_data / "data" / "cut_online" / "iter1.json").read_text())[:200]
    for row in rows:
        messages = [{"role": "user", "content": row["instruction"]}]
        expected = smollm.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        prompt = build_prompts(smollm, "chat", row["instruction"], None, "Perfect.")["instruction"]
        assert prompt == expected
        answered = [*messages, {"role": "assistant", "content": row["output"]}]
        whole = smollm.apply_chat_template(answered, return_dict=False)
        joined = prompt + build_response(smollm, row["output"], "chat")
        assert whole[: len(joined)] == joined


def test_chat_puts_the_judgment_in_the_user_turn_after_the_instruction(smollm):
    prompts = build_prompts(smollm, "chat", "Add 1 and 2.", "It is 3.", "Perfect.")
    authentic = smollm.decode(prompts["authentic"])
    turn = (
        "<|im_start|>user\nAdd 1 and 2.\n\n"
        "Write a response to the instruction above that matches the following judgment.\n\n"
        "### Judgment:\nIt is 3.<|im_end|>\n<|im_start|>assistant\n"
    )
    assert authentic.endswith(turn)
    assert smollm.decode(prompts["fake"]) == authentic.replace("It is 3.", "Perfect.")


def test_control_strings_of_a_chat_template_are_all_special_tokens_and_the_markers_it_writes(smollm):
    assert control_strings(smollm, "alpaca") == []
    assert {"<|im_start|>", "<|im_end|>", "<|endoftext|>", "<file_sep>"} <= set(
        control_strings(smollm, "chat")
    )
    assert set(control_strings(llama_like_tokenizer(), "chat")) == {
        "<s>",
        "</s>",
        "<unk>",
        "[INST]",
        "[/INST]",
    }
    assert "[assistant]" in control_strings(byte_tokenizer(), "chat")


def test_added_tokens_are_control_strings_only_where_the_chat_template_uses_them():
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens([AddedToken("<tool_call>"), AddedToken("<b>"), AddedToken("    ")])
    tokenizer.chat_template += "{% if tools %}<tool_call>{% endif %}"
    strings = control_strings(tokenizer, "chat")
    assert "<tool_call>" in strings
    assert not {"<b>", "    "} & set(strings)


def test_todays_date_does_not_enter_a_prompt():
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = (
        "{% if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
        "{{ date_string }}{{ messages[0]['content'] }}"
    )
    assert render_prompt(tokenizer, "chat", "x") == "26 Jul 2024x"


def test_tokens_are_counted_without_bos_and_eos(tokenizer):
    assert count_tokens(tokenizer, []) == []
    assert count_tokens(tokenizer, ["", "Hi Hi"])[0] == 0
    assert count_tokens(byte_tokenizer(), ["four"]) == [4]


def test_what_cannot_be_templated_says_why():
    tokenizer = byte_tokenizer()
    with pytest.raises(DataError, match="data.template='alpacca': choose one of alpaca, chat"):
        render_prompt(tokenizer, "alpacca", "x")
    tokenizer.chat_template = None
    with pytest.raises(DataError, match="no chat template"):
        render_prompt(tokenizer, "chat", "x")
    tokenizer.eos_token = None
    with pytest.raises(DataError, match="no EOS token"):
        build_response(tokenizer, "x")
