"""The byte-level tokenizer: ids are bytes, and nothing is lost on the way back or through a save."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from cut_dist.model.tiny import byte_tokenizer

TEXTS = ["", "What is 7 + 5?", "Naïve café — 日本語 🙂", "tabs\t and\n\nnew lines  ", "it's \x00 not <eos> ."]


@pytest.fixture(scope="module")
def tokenizer():
    return byte_tokenizer()


@pytest.fixture(scope="module")
def reloaded(tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bytes")
    tokenizer.save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("text", TEXTS)
def test_ids_are_the_bytes_of_the_text(tokenizer, text):
    ids = tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids
    assert ids == list(text.encode("utf-8"))
    assert tokenizer.decode(ids) == text


@settings(max_examples=200, deadline=None)
@given(text=st.text(alphabet=st.characters(exclude_categories=("Cs",)), max_size=40))
def test_any_text_comes_back(text):
    tokenizer = byte_tokenizer()
    ids = tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids
    assert ids == list(text.encode("utf-8"))
    assert tokenizer.decode(ids) == text


def test_special_tokens_follow_the_bytes(tokenizer):
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (256, 257, 258)
    assert len(tokenizer) == 259
    assert tokenizer("a").input_ids == [256, 97]
    assert tokenizer.decode([256, 97, 257], skip_special_tokens=True) == "a"


def test_chat_template(tokenizer):
    question, answer = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes"}
    prompt = tokenizer.apply_chat_template([question], tokenize=False, add_generation_prompt=True)
    assert prompt == "<bos>[user]\nHi\n[assistant]\n"
    both = tokenizer.apply_chat_template([question, answer], tokenize=False)
    assert both == prompt + "Yes<eos>\n"


@pytest.mark.parametrize("text", TEXTS)
def test_save_and_load(tokenizer, reloaded, text):
    assert reloaded(text).input_ids == tokenizer(text).input_ids
    assert reloaded.chat_template == tokenizer.chat_template
    assert reloaded.all_special_ids == tokenizer.all_special_ids


def test_two_are_the_same():
    assert byte_tokenizer().backend_tokenizer.to_str() == byte_tokenizer().backend_tokenizer.to_str()
