"""The local judge: what a reply says, what is asked again or set aside, and that starts don't change verdicts."""

from __future__ import annotations

import pytest
from local_models import online_config, save_tiny

from cut_dist.generators.batches import BatchSampler, Reply
from cut_dist.judges import local
from cut_dist.judges.base import JudgeRequest
from cut_dist.judges.reply import MalformedReply, Verdict, parse_reply
from cut_dist.model.tiny import byte_tokenizer


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        (" Perfect. Yes.", Verdict(True, "Perfect.")),
        (" Yes.", Verdict(True, "")),
        (" The sum is wrong. No.", Verdict(False, "The sum is wrong.")),
        (" Is it right? Yes. Is it polite? No.\n", Verdict(False, "Is it right? Yes. Is it polite?")),
        ("Two lines\nof words. Yes. ", Verdict(True, "Two lines\nof words.")),
        ("Falsch.No.", Verdict(False, "Falsch.")),
    ],
)
def test_the_decision_at_the_end_is_the_verdict(text, verdict):
    assert parse_reply(text, finished=True) == verdict


@pytest.mark.parametrize(
    ("text", "finished", "why"),
    [
        (" The sum is wrong. No.", False, "cut off at judge.max_new_tokens"),
        (" The sum is wrong.", True, 'no "Yes." or "No." at the end'),
        (" Wrong. No. But still.", True, "at the end"),
        (" Wrong. no.", True, "at the end"),
        (" They sent it to UNo.", True, "at the end"),
        ("", True, "at the end"),
        (" No.", True, '"No." without a judgment'),
        (" ... No.", True, "without a judgment"),
        (" Perfect. No.", True, '"No." after praise'),
        (" perfect! No.", True, "after praise"),
    ],
)
def test_anything_else_is_malformed(text, finished, why):
    with pytest.raises(MalformedReply, match=why):
        parse_reply(text, finished)


def requests(*responses: str) -> list[JudgeRequest]:
    turns = [("user", "Add 1 and 2.")]
    return [
        JudgeRequest(f"r{n}", [{"role": role, "content": text} for role, text in [*turns, ("assistant", response)]])
        for n, response in enumerate(responses)
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("judge"))


@pytest.fixture
def scripted(monkeypatch):
    """Replies that are given instead of the model's: (id, attempt) → text; notes the temperatures asked with."""
    replies, asked = {}, []

    def sample(self, batch, sampling):
        asked.append(([prompt.id for prompt in batch], sampling.temperature, batch[0].seed))
        attempt = {id: sum(id in ids for ids, _, _ in asked) for prompt in batch for id in [prompt.id]}
        texts = [replies.get((prompt.id, attempt[prompt.id]), " Wrong. No.") for prompt in batch]
        return [Reply(prompt.id, text, "stop", len(prompt.token_ids), len(text), batch[0].seed, row)
                for row, (prompt, text) in enumerate(zip(batch, texts))]  # fmt: skip

    monkeypatch.setattr(BatchSampler, "sample", sample)
    return replies, asked


def judge_of(folder, *overrides: str) -> local.LocalJudge:
    return local.make(online_config("judge=local", f"judge.model={folder}", "judge.max_new_tokens=40", *overrides))


def test_the_prompt_is_the_papers_word_for_word_and_a_response_makes_no_control_token(folder):
    [request] = requests("<eos> 3 {judgment}")
    ids = judge_of(folder)._token_ids(request)
    text = (
        "Below is an instruction-response pair. Write a judgment to evaluate the quality of this response. Then reply "
        "with 'Yes.' or 'No.' to show your decision on whether the response is perfect.\n\n"
        "### Instruction: Add 1 and 2.\n\n### Response: <eos> 3 {judgment}\n\n### Judgment:"
    )
    assert ids == [byte_tokenizer().bos_token_id, *text.encode()]


def test_malformed_replies_are_asked_for_again_and_then_set_aside(folder, scripted):
    replies, asked = scripted
    replies |= {("r0", 1): " Perfect. Yes.", ("r1", 1): "", ("r1", 2): " Sums to 3. Yes."}
    replies |= {("r2", attempt): f"hm {attempt}" for attempt in (1, 2, 3)}
    judged = {each.id: each for each in judge_of(folder).judge(requests("a", "bb", "ccc", "dddd"))}
    assert (judged["r0"].satisfactory, judged["r0"].judgment, judged["r0"].detail["words"]) == (True, None, "Perfect.")
    assert judged["r1"].satisfactory and judged["r1"].detail["attempts"] == 2
    assert judged["r2"].satisfactory is None and judged["r2"].judgment is None
    assert judged["r2"].detail["reason"] == 'malformed: no "Yes." or "No." at the end'
    assert (judged["r2"].detail["reply"], judged["r2"].detail["attempts"]) == ("hm 3", 3)
    assert (judged["r3"].satisfactory, judged["r3"].judgment) == (False, "Wrong.")
    assert [(ids, temperature) for ids, temperature, _ in asked] == [
        (["r3", "r2", "r1", "r0"], 0.0), (["r2", "r1"], 0.7), (["r2"], 0.7),
    ]  # fmt: skip
    assert len({seed for _, _, seed in asked}) == 3


def test_what_can_not_be_asked_is_set_aside_with_the_reason(folder, scripted):
    judge = judge_of(folder, "judge.template=chat")
    judged = {each.id: each for each in judge.judge(requests("say <eos>", "x" * 2000, "fine"))}
    assert judged["r0"].satisfactory is None and '"<eos>"' in judged["r0"].detail["reason"]
    assert judged["r1"].satisfactory is None and "the judge has 1024 positions" in judged["r1"].detail["reason"]
    assert judged["r2"].satisfactory is False


def test_verdicts_do_not_depend_on_where_a_start_was_interrupted(folder):
    """A random model says nothing that can be read, so all of it is set aside, with what it said."""
    everything = requests(*("x" * n for n in range(7)))
    judge = judge_of(folder, "judge.batch_size=3", "judge.malformed_retries=1")
    whole = list(judge.judge(everything))
    assert len(whole) == 7 and len({each.detail["reply"] for each in whole}) == 7
    for stop in range(8):
        done = {each.id for each in whole[:stop]}
        assert list(judge.judge(everything, done)) == [each for each in whole if each.id not in done]
