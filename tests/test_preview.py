"""The preview: nothing left out of a response, numbers those of the trainer, and no text of the data obeyed."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from rich.console import Console
from tokenizers import Tokenizer, decoders, models, normalizers
from transformers import PreTrainedTokenizerFast

from cut_dist.config import ConfigError, PreviewJobConfig
from cut_dist.config_compose import compose_config
from cut_dist.data.packing import example_tokens, rank_micro_batches
from cut_dist.data.prepare import prepare
from cut_dist.data.sampler import Sampler
from cut_dist.kernels.cut_loss import cut_token_loss_reference
from cut_dist.model.load import load_causal_lm
from cut_dist.model.tiny import byte_tokenizer
from cut_dist.preview import job
from cut_dist.preview.colour import FULL, shade
from cut_dist.preview.measure import measure
from cut_dist.preview.summary import pack
from cut_dist.preview.tokens import HALF_CHARACTER, printable, split_control, token_texts, visible
from cut_dist.preview.view import View

SCRIPT = "<script>alert('x')</script>"
ROWS = [
    {"id": f"<b onclick=x>{SCRIPT}", "instruction": f"Say {SCRIPT} & \"hi\"",
     "response": f"naïve \" onclick=x {SCRIPT} 日本\n\n\tdone", "judgment": f"No: {SCRIPT}"},
    {"id": "esc", "instruction": "Colour \x1b[31mred it.", "judgment": "Too red.",
     "response": "a\x1b[31mred\x1b[0m \u202eback"},
    {"id": "good", "instruction": "Add 1 and 1.", "response": "It is 2.", "judgment": None},
    {"id": "good-too", "instruction": "Add 1 and 2.", "response": "It is 3, as everyone knows.", "judgment": None},
    {"id": "long", "instruction": "word " * 200 + "end.", "response": "Short.", "judgment": "Too short."},
]  # fmt: skip
VOID = {"meta"}


def configure(tmp_path, *overrides: str) -> PreviewJobConfig:
    """A tiny random model on ROWS. Its contexts hardly differ, so λ lies just below 1 to find tokens on both sides."""
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    own = [f"data.path={path}", "data.heldout_path=null", "data.heldout_size=0", f"data.cache_dir={tmp_path}/cache",
           "eval.at_start=false", "eval.at_end=false", "data.limit=null", "data.max_length=600",
           "data.max_judgment_tokens=100", "objective.lam=0.999", "preview.count=9"]  # fmt: skip
    return compose_config("preview", ["+experiment=smoke", *own, *overrides], PreviewJobConfig)


def prepared(cfg: PreviewJobConfig):
    return prepare(cfg.data, byte_tokenizer(), seed=cfg.seed, fake_judgment=cfg.objective.fake_judgment)


def show(cfg: PreviewJobConfig, monkeypatch, **console) -> tuple[str, list[View]]:
    """What the preview prints, and the examples that it shows."""
    views, out = [], io.StringIO()
    real = job.view_example
    monkeypatch.setattr(job, "view_example", lambda *args: views.append(real(*args)) or views[-1])
    assert job.preview(cfg, Console(file=out, **{"width": 100, "color_system": None, **console})) == 0
    return out.getvalue(), views


class Page(HTMLParser):
    """Reads a page as a browser would: its tags, its attributes, and each response's tokens."""

    def __init__(self, text: str):
        super().__init__()
        self.tags, self.attributes, self.text = set(), set(), ""
        self.responses: list[list[tuple[bool, str, str]]] = []  # inappropriate, text, title
        self.stack: list[str] = []
        self.feed(text)
        assert not self.stack

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.add(tag)
        self.attributes |= set(attrs)
        classes = attrs.get("class", "").split()
        if tag == "div" and classes == ["response"]:
            self.responses.append([])
        if "token" in classes and "title" in attrs:
            self.responses[-1].append(("bad" in classes, "", attrs["title"]))
        if tag not in VOID:
            self.stack.append("token" if "title" in attrs and "token" in classes else tag)

    def handle_endtag(self, tag):
        opened = self.stack.pop()
        assert opened in (tag, "token")

    def handle_data(self, data):
        self.text += data
        if self.stack and self.stack[-1] == "token":
            bad, text, title = self.responses[-1][-1]
            self.responses[-1][-1] = (bad, text + data, title)


def llama_like_tokenizer() -> PreTrainedTokenizerFast:
    """As Llama 2's: a space before every text, "▁" for spaces, bytes for what has no token of its own."""
    vocab = {"<unk>": 0, "</s>": 1} | {f"<0x{byte:02X}>": byte + 2 for byte in range(256)}
    for piece in ["▁", *map(chr, range(33, 127)), "Hi", "▁Hi"]:
        vocab[piece] = len(vocab)
    merges = [("H", "i"), ("▁", "Hi")]
    backend = Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", byte_fallback=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    backend.add_special_tokens(["<unk>", "</s>"])
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>", unk_token="<unk>")


@pytest.mark.parametrize("make", [byte_tokenizer, llama_like_tokenizer])
@pytest.mark.parametrize("text", ["Hi Hi", " two  spaces ", "日本 naïve🙂!", "日", "a\n\n\tb", "�x�"])
def test_what_tokens_add_joins_to_the_text(make, text):
    tokenizer = make()
    before = tokenizer("Say:\n", add_special_tokens=False).input_ids
    both = tokenizer("Say:\n" + text, add_special_tokens=False).input_ids
    assert both[: len(before)] == before
    texts = token_texts(tokenizer, both[len(before) :], before)
    assert len(texts) == len(both) - len(before)
    assert "".join(texts) == text


def test_a_character_is_added_by_its_last_byte():
    ids = byte_tokenizer()("é日", add_special_tokens=False).input_ids
    assert token_texts(byte_tokenizer(), ids) == ["", "é", "", "", "日"]
    assert token_texts(byte_tokenizer(), ids[:-1]) == ["", "é", "", HALF_CHARACTER]  # cut off: nothing is lost


def test_only_control_tokens_are_taken_for_such():
    tokenizer = byte_tokenizer()
    ids = [tokenizer.bos_token_id, *tokenizer("a<bos>", add_special_tokens=False, split_special_tokens=True).input_ids]
    assert split_control(tokenizer, ids) == [("<bos>", True), ("a<bos>", False)]


def test_invisible_characters_show():
    assert printable("a\x1b[31m\u202e\u2028\x00é日🙂\n") == "a\\x1b[31m\\u202e\\u2028\\x00é日🙂\n"
    assert visible("\n") == "⏎\n" and visible("\t") == "⇥" and visible("  ") == "␣␣" and visible("") == HALF_CHARACTER
    assert visible(" a") == " a"


def test_the_scale_diverges_and_ends():
    assert shade(0.0) == shade(float("nan")) == (255, 255, 255)
    red, blue = shade(1.0), shade(-1.0)
    assert red[0] > red[2] and blue[2] > blue[0]
    assert shade(FULL) == shade(50.0) == shade(float("inf")) != red


def test_numbers_are_those_of_plain_forwards(tmp_path):
    cfg = configure(tmp_path)
    examples = prepared(cfg).train
    causal_lm = load_causal_lm(cfg.model, dtype=torch.float32, seed=cfg.seed).eval()
    flagged = []
    for example, measured in zip(examples, measure(cfg, examples)):
        labels = torch.from_numpy(example.response_ids.astype(np.int64))
        logits = {}
        for name, prompt in example.prompt_ids.items():
            ids = torch.cat([torch.from_numpy(prompt.astype(np.int64)), labels])
            with torch.no_grad():
                logits[name] = causal_lm(ids[None]).logits[0, len(prompt) - 1 : -1]
        expected = cut_token_loss_reference(
            logits["instruction"], logits.get("authentic"), logits.get("fake"), labels, lam=0.999, alpha=1, gamma=0.5
        )
        record = measured.record
        np.testing.assert_allclose(record.logp, expected.logp, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(measured.loss_instruction, expected.loss_instruction, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(measured.loss_authentic, expected.loss_authentic, rtol=1e-4, atol=1e-5)
        differences = (expected.logp_authentic - expected.logp_fake - np.log(0.999)).abs().numpy()
        clear = differences > 1e-5
        assert (record.inappropriate == expected.inappropriate.numpy())[clear].all()
        flagged += record.inappropriate.tolist()
    assert 0.1 < np.mean(flagged) < 0.9


@pytest.mark.parametrize("forward", ["true", "false"])
def test_page_shows_every_token_and_obeys_none(tmp_path, monkeypatch, forward):
    target = tmp_path / "deep" / "page.html"
    cfg = configure(tmp_path, f"preview.html={target}", f"preview.forward={forward}")
    _, views = show(cfg, monkeypatch)
    source = target.read_text(encoding="utf-8")
    page = Page(source)
    allowed = {"html", "head", "meta", "title", "style", "body", "h1", "h2", "h3", "p", "div", "span", "article",
               "table", "thead", "tbody", "tr", "th", "td", "pre", "details", "summary", "b"}  # fmt: skip
    assert page.tags <= allowed
    assert page.attributes <= {"lang", "charset", "http-equiv", "content", "name", "class", "style", "title"}
    assert "http:" not in source and "https:" not in source and "url(" not in source
    assert SCRIPT not in source and page.text.count(SCRIPT) >= 5  # id, prompts, judgment, response
    assert "\x1b" not in source and "\u202e" not in source
    responses = {view.id: tokens for view, tokens in zip(views, page.responses, strict=True)}
    assert len(responses) == len(ROWS)
    for row in ROWS:
        shown = "".join(text for _, text, _ in responses[row["id"]]).replace(HALF_CHARACTER, "")
        assert shown == printable(row["response"].replace("\t", "⇥")).replace("\n", "⏎\n") + "<eos>"


def test_page_marks_what_the_records_call_inappropriate(tmp_path, monkeypatch):
    target = tmp_path / "page.html"
    cfg = configure(tmp_path, f"preview.html={target}")
    _, views = show(cfg, monkeypatch)
    examples = prepared(cfg).train
    page = Page(target.read_text(encoding="utf-8"))
    for example, measured, view, tokens in zip(examples, measure(cfg, examples), views, page.responses, strict=True):
        assert view.id == example.id
        assert [bad for bad, _, _ in tokens] == measured.record.inappropriate.tolist()
        assert np.mean([token.loss for token in view.tokens]) == pytest.approx(measured.record.loss, rel=1e-5)
        for token, (bad, _, title) in zip(view.tokens, tokens):
            assert all(f"{name} = {value}" in title for name, value in token.facts.items())
            assert ("w = α·(p⁻)^γ" in token.facts) == bad
            assert ("p⁻/p⁺" in token.facts) == example.is_negative
            if bad:
                assert token.weight == pytest.approx(np.exp(cfg.objective.gamma * token.logp_authentic))  # α = 1


def test_without_forward_no_model_is_loaded(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("the model was loaded")

    for name in ("from_config", "from_pretrained"):
        monkeypatch.setattr(f"transformers.AutoModelForCausalLM.{name}", refuse)
    with pytest.raises(AssertionError, match="the model was loaded"):
        show(configure(tmp_path), monkeypatch)
    _, views = show(configure(tmp_path, "preview.forward=false"), monkeypatch)
    assert all(token.logp is None and not token.facts for view in views for token in view.tokens)
    assert "that a model finds inappropriate" in views[0].contexts[0].loss


@pytest.mark.parametrize("colour", [None, "truecolor"])
@pytest.mark.parametrize("width", [24, 200])
def test_terminal_of_any_width(tmp_path, monkeypatch, width, colour):
    options = {"width": width, "color_system": colour, "force_terminal": colour is not None}
    out, views = show(configure(tmp_path), monkeypatch, **options)
    assert max(len(line) for line in out.splitlines()) <= width or colour
    assert "\x1b[31mred" not in out and "\u202e" not in out
    assert ("\x1b" in out) == (colour is not None)
    if colour is None:
        flat = "".join(out.split()).replace("⟦", "").replace("⟧", "")
        for view in views:
            assert "".join("".join(visible(token.text) for token in view.tokens).split()) in flat
        assert "⟦" in out
    elif width == 200:
        assert "\x1b[1;4;38;2;20;20;20;48;2;" in out  # bold, underlined, black on a colour


def test_contrast_with_the_instruction_context(tmp_path, monkeypatch):
    _, views = show(configure(tmp_path, "objective.contrast=instruction"), monkeypatch)
    negative = [view for view in views if view.is_negative]
    assert [context.name for context in negative[0].contexts] == ["instruction", "authentic"]
    assert all(token.logp_contrast == token.logp for view in negative for token in view.tokens)


def test_trimmed_example_says_so(tmp_path, monkeypatch):
    cfg = configure(tmp_path)
    out, views = show(cfg, monkeypatch)
    notes = {view.id: view.notes for view in views}
    [note] = notes.pop("long")
    assert not any(notes.values())
    example = next(e for e in prepared(cfg).train if e.id == "long")
    gone = len(ROWS[-1]["instruction"]) - len(example.prompt_ids["instruction"]) + len(_frame(example, cfg))
    assert f"the first {gone} tokens" in note and "data.max_length is 600" in note
    assert "trimmed to data.max_length" in out and prepared(cfg).counts["overlong_trimmed"] == 1


def _frame(example, cfg) -> list[int]:
    """The prompt without its instruction, which is written in bytes."""
    text = byte_tokenizer().decode(example.prompt_ids["instruction"].tolist())
    kept = text.split("### Instruction:\n")[1].split("\n\n### Response")[0]
    return example.prompt_ids["instruction"][: len(example.prompt_ids["instruction"]) - len(kept)].tolist()


@pytest.mark.parametrize("reduction", ["example_mean", "token_mean"])
def test_weight_is_the_packed_batchs(tmp_path, monkeypatch, reduction):
    cfg = configure(tmp_path, f"objective.reduction={reduction}", "train.global_batch_size=2", "preview.forward=false")
    _, views = show(cfg, monkeypatch)
    train = prepared(cfg).train
    sampler = Sampler(len(train), 2, cfg.seed, cfg.train.epochs, cfg.train.max_steps)
    for step in range(2):
        chosen = sampler.batch(step).tolist()
        [batch] = rank_micro_batches([train[i] for i in chosen], contrast="fake", reduction=reduction, rank=0,
                                     world_size=1, token_budget=10**6)  # fmt: skip
        begin = 0
        for index, rows in zip(batch.examples, batch.row_counts):
            place = next(view.place for view in views if view.id == train[chosen[index]].id)
            assert f"step {step + 1} of 10" in place
            assert f"= {batch.token_weight[begin].item():.3g} there" in place
            begin += rows


@pytest.mark.parametrize("ranks,budget", [(1, 10**6), (2, 1500), (4, 1500), (3, 100)])
def test_packing_is_the_trainers(tmp_path, ranks, budget):
    examples = prepared(configure(tmp_path)).train
    packing = pack([example_tokens(example, "fake") for example in examples], ranks, budget)
    fillers = total = 0
    for rank in range(ranks):
        batches = rank_micro_batches(examples, contrast="fake", reduction="example_mean", rank=rank, world_size=ranks,
                                     token_budget=budget)  # fmt: skip
        assert len(batches) == packing.micro_batches
        assert sum(batch.num_tokens for batch in batches if batch.examples) == packing.rank_tokens[rank]
        fillers += sum(not batch.examples for batch in batches)
        total += packing.rank_tokens[rank]
    assert packing.fillers == fillers
    assert packing.fill == pytest.approx(total / (budget * ranks * packing.micro_batches))


def test_choice_of_examples(tmp_path):
    examples = prepared(configure(tmp_path)).train
    kinds = [examples[i].is_negative for i in job.choose(examples, 3, seed=0)]
    assert sorted(kinds) == [False, True, True]
    assert job.choose(examples, 99, seed=0) == list(range(len(examples)))
    assert len(job.choose(examples, 1, seed=0)) == 1
    assert job.choose(examples, 2, seed=0) == job.choose(examples, 2, seed=0)
    assert len({tuple(job.choose(examples, 2, seed=seed)) for seed in range(20)}) > 1
    positives = [example for example in examples if not example.is_negative]
    assert job.choose(positives, 2, seed=0) == [0, 1]
    assert [examples[i].id for i in job.find(examples, ["good", "esc"])] == ["good", "esc"]


def test_nothing_to_show_is_said(tmp_path):
    with pytest.raises(ConfigError, match="holds nothing out"):
        job.preview(configure(tmp_path, "preview.split=heldout", "preview.forward=false"))
    with pytest.raises(ConfigError, match="no example .* 'goood'; did you mean 'good'"):
        job.preview(configure(tmp_path, "preview.ids=[goood]", "preview.forward=false"))
    with pytest.raises(ConfigError, match="must be a file"):
        job.preview(configure(tmp_path, f"preview.html={tmp_path}"))


def test_command_runs_without_deepspeed(tmp_path, root):
    arguments = ["+experiment=smoke", f"data.cache_dir={tmp_path}", f"preview.html={tmp_path}/page.html"]
    code = (
        f"import runpy, sys; sys.argv = ['launch/preview.py', *{arguments!r}]\n"
        "try: runpy.run_path('launch/preview.py', run_name='__main__')\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "assert 'deepspeed' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "Preview of smoke" in done.stdout and "First global batch" in done.stdout
    assert len(Page((tmp_path / "page.html").read_text(encoding="utf-8")).responses) == 4
