"""Judge `local`: a Hugging Face model asked with the paper's AI-judge template, as `objective=judge` trains one.

A reply without a sound verdict is asked for again, with sampling where the first was greedy; one that stays malformed
is set aside. Batches are those of all requests (see `generators.batches`), so what an interrupted start left open is
judged as it would have been.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from typing import Any

from cut_dist.config import ModelConfig
from cut_dist.data.templates import control_strings, render_judge_prompt, tokenize_prompts
from cut_dist.generators.base import stable_seed
from cut_dist.generators.batches import BatchSampler, Prompt, Reply, Sampling, plan_batches
from cut_dist.judges.base import Judged, JudgeRequest
from cut_dist.judges.reply import MalformedReply, parse_reply
from cut_dist.model.load import load_tokenizer, position_limit
from cut_dist.online.config import OnlineConfig
from cut_dist.online.ranks import LauncherRanks

_RETRY_TEMPERATURE = 0.7  # greedy would say the same again


def make(cfg: OnlineConfig) -> LocalJudge:
    """The judge of `judge.model`."""
    return LocalJudge(cfg)


class LocalJudge:
    """Judges batch by batch, in one process; the weights are loaded when the first batch is due."""

    def __init__(self, cfg: OnlineConfig) -> None:
        self.cfg = cfg
        self.model = ModelConfig(name_or_path=cfg.judge.model)
        self.tokenizer = load_tokenizer(self.model)

    def judge(self, requests: Sequence[JudgeRequest], done: Set[str] = frozenset()) -> Iterator[Judged]:
        """One `Judged` for each request of a batch that has one not in `done`; see `judges.base.Judge`.

        Args:
            requests: all requests of the stage; verdicts depend on which ones are judged together.
            done: ids that an earlier start has judged.
        """
        cfg = self.cfg.judge
        prompts, refused = self._prompts(requests)
        yield from (Judged(id, None, None, self._detail(0, reason)) for id, reason in refused.items() if id not in done)
        batches = plan_batches(prompts, cfg.batch_size)
        unjudged = [batch for batch in batches if any(prompt.id not in done for prompt in batch)]
        if not unjudged:
            return
        sampler = BatchSampler(
            self.model, self.tokenizer, LauncherRanks(), precision=self.cfg.train.precision, seed=self.cfg.seed,
            batch_size_key="judge.batch_size",
        )  # fmt: skip
        for batch in unjudged:
            yield from (judged for judged in self._judge_batch(batch, sampler) if judged.id not in done)

    def _prompts(self, requests: Sequence[JudgeRequest]) -> tuple[list[Prompt], dict[str, str]]:
        """Prompts, and by id the reasons why some requests get none."""
        strings = control_strings(self.tokenizer, self.cfg.judge.template)
        limit = position_limit(self.model)
        prompts, refused = [], {}
        for request in requests:
            text = request.instruction + "\n" + request.response
            found = next((string for string in strings if string in text), None)
            if found is not None:
                refused[request.id] = f'control token: "{found}" in the instruction or the response'
                continue
            ids = self._token_ids(request)
            if limit is not None and len(ids) + self.cfg.judge.max_new_tokens > limit:
                refused[request.id] = f"too long: {len(ids)} tokens of prompt, the judge has {limit} positions in all"
                continue
            prompts.append(Prompt(request.id, ids, stable_seed(self.cfg.seed, "judge", request.id)))
        return prompts, refused

    def _token_ids(self, request: JudgeRequest) -> list[int]:
        template = self.cfg.judge.template
        prompt = render_judge_prompt(self.tokenizer, template, request.instruction, request.response)
        return tokenize_prompts(self.tokenizer, template, [prompt])[0]

    def _judge_batch(self, batch: Sequence[Prompt], sampler: BatchSampler) -> Iterator[Judged]:
        """Ask for all, then again for those whose reply was malformed."""
        cfg, waiting = self.cfg.judge, list(batch)
        for attempt in range(1, cfg.malformed_retries + 2):
            temperature = cfg.temperature if attempt == 1 else cfg.temperature or _RETRY_TEMPERATURE
            replies = sampler.sample(waiting, Sampling(temperature, 1.0, cfg.max_new_tokens))
            malformed = []
            for prompt, reply in zip(waiting, replies):
                try:
                    yield self._judged(reply, attempt)
                except MalformedReply as problem:
                    malformed.append(Prompt(prompt.id, prompt.token_ids, stable_seed(prompt.seed, attempt)))
                    if attempt > cfg.malformed_retries:
                        detail = self._detail(attempt, f"malformed: {problem}")
                        yield Judged(reply.id, None, None, {**detail, "reply": reply.text})
            waiting = malformed
            if not waiting:
                return

    def _judged(self, reply: Reply, attempt: int) -> Judged:
        verdict = parse_reply(reply.text, finished=reply.finish_reason == "stop")
        detail = {"prompt_tokens": reply.prompt_tokens, "reply_tokens": reply.tokens, "seed": reply.batch_seed}
        if verdict.satisfactory:
            detail["words"] = verdict.words
        judgment = None if verdict.satisfactory else verdict.words
        return Judged(reply.id, verdict.satisfactory, judgment, self._detail(attempt) | detail)

    def _detail(self, attempts: int, reason: str | None = None) -> dict[str, Any]:
        detail = {"judge": "local", "model": self.cfg.judge.model, "attempts": attempts}
        return detail if reason is None else detail | {"reason": reason}
