"""A laboratory: the base model of one seed, its own answers, judgments of them, what a training makes of it.

Everything random follows from the seed and a name. All models lie in Hugging Face format and are trained by the same
trainer as any other (`cut_dist.train`), in this process.
"""

from __future__ import annotations

import json
import math
import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cut_dist import durable
from cut_dist.config import ModelConfig, RunConfig
from cut_dist.data.templates import render_prompt, tokenize_prompts
from cut_dist.generators.base import stable_seed
from cut_dist.generators.batches import BatchSampler, Prompt, Sampling, plan_batches
from cut_dist.model.load import load_tokenizer
from cut_dist.online.ranks import LauncherRanks
from cut_dist.study import judgments
from cut_dist.study.corpus import corpus, refine_request, row
from cut_dist.study.rows import TEMPLATE, data_config, write_rows
from cut_dist.study.token_records import token_records
from cut_dist.study.tokenizer import make_tokenizer
from cut_dist.study.world import JUDGED, OTHERS, Item, Symbols, draw

if TYPE_CHECKING:
    from cut_dist.study.config import StudyConfig
    from cut_dist.study.trainer import Trainer

MAX_ANSWER = 20  # tokens; the longest right answer has 12
_BATCH = 250


@dataclass(frozen=True)
class Sample:
    """An instruction and what a model answered."""

    id: str
    item: Item
    response: Symbols

    @property
    def right(self) -> bool:
        return self.response == self.item.answer


class Lab:
    """The laboratory of one seed in a folder of its own.

    Args:
        cfg: the study.
        seed: of corpus, weights, instructions, samples and training.
        root: folder of all laboratories; base model, triplets and trained models of this one lie in <root>/seed<seed>.
        trainer: runs a training in this process.
        size: a key of `study.sizes`, for a base model of other sizes in a folder of its own, <root>/seed<seed>-<size>.
    """

    def __init__(self, cfg: StudyConfig, seed: int, root: Path, trainer: Trainer, size: str | None = None) -> None:
        self.cfg, self.seed, self._trainer = cfg, seed, trainer
        self.folder = root / (f"seed{seed}-{size}" if size else f"seed{seed}")
        self.random_init = {**cfg.model.random_init, **(cfg.study.sizes[size] if size else {})}
        self.base = self.folder / "base" / "model"

    # ---- the base model ----------------------------------------------------------------------------------------------

    def pretrain(self) -> None:
        """Train the base model on the mixture of `corpus`: `objective=hindsight`, from random weights."""
        if self.base.exists():
            return
        study = self.cfg.study
        tokenizer = self.folder / "tokenizer"
        make_tokenizer().save_pretrained(tokenizer)
        path = self.folder / "corpus.jsonl"
        write_rows(path, corpus(self.seed, study.pretrain_steps * study.pretrain_batch))
        model = replace(self.cfg.model, tokenizer=str(tokenizer), random_init=self.random_init)
        train = replace(
            self.cfg.train, lr=study.pretrain_lr, warmup_ratio=0.05, schedule="cosine", betas=[0.9, 0.98],
            max_steps=study.pretrain_steps, global_batch_size=study.pretrain_batch,
        )  # fmt: skip
        self._train("base", model, path, replace(self.cfg.objective, name="hindsight"), train)

    # ---- answers and judgments ---------------------------------------------------------------------------------------

    def sample(self, model: Path, name: str, count: int) -> list[Sample]:
        """Answers of `model`, at temperature 1, to `count` fresh instructions of the judged families; they are kept."""
        items, path = self._items(name, count, JUDGED), self.folder / f"{name}-sampled.json"
        if not path.exists():
            durable.replace_file(path, json.dumps(self._answer(model, items, temperature=1.0, name=name)).encode())
        answers = json.loads(path.read_text())
        pairs = zip(items, answers, strict=True)
        return [Sample(f"{name}-{i}", item, answer) for i, (item, answer) in enumerate(pairs)]

    def judged(self, samples: Sequence[Sample], quality: judgments.Quality | None = None) -> list[dict]:
        """Triplets of the samples, judged with one quality or, without, a mixture; which are wrong is told rightly."""
        rng = random.Random(f"judge {self.seed} {quality} {samples[0].id}")
        qualities = [quality or judgments.draw_quality(rng) for _ in samples]
        said = [judgments.judge(rng, s.response, s.item.answer, q) for s, q in zip(samples, qualities)]
        if quality == "random":  # a judgment of another wrong answer
            negative = [j for j in said if j is not None]
            others = iter([*negative[1:], *negative[:1]])
            said = [None if j is None else next(others) for j in said]
        return [row(s.id, s.item, s.response, j) for s, j in zip(samples, said) if s.response]

    def refined(self, model: Path, rows: Sequence[Mapping[str, Any]]) -> list[dict]:
        """The rows with `refinement`: what `model` makes of each wrong response by its judgment, greedily (ILF)."""
        wrong = [row for row in rows if row["judgment"] is not None]
        asked = [refine_request(row["instruction"], row["response"].split(), row["judgment"]) for row in wrong]
        made = dict(zip((row["id"] for row in wrong), self._reply(model, asked, temperature=0.0, name="refine")))
        return [{**row, "refinement": " ".join(made[row["id"]]) if row["id"] in made else None} for row in rows]

    # ---- training and measuring --------------------------------------------------------------------------------------

    def train(
        self, name: str, start: Path, triplets: Path, objective: Mapping[str, Any], train: Mapping[str, Any]
    ) -> Path:
        """Train the model `start` on a file of triplets, with keys of the groups `objective` and `train` set.

        Returns:
            The trained model's folder.
        """
        model = ModelConfig(name_or_path=str(start), checkpointing="none")
        return self._train(
            name, model, triplets, replace(self.cfg.objective, **objective), replace(self.cfg.train, **train)
        )

    def _train(self, name, model, triplets, objective, train) -> Path:
        run = RunConfig(root=str(self.folder.parent), experiment=self.folder.name, name=name)
        cfg = replace(
            self.cfg, model=model, data=data_config(triplets, self.folder), objective=objective,
            train=train, run=run, seed=self.seed,
        )  # fmt: skip
        return self._trainer.run(cfg)

    def measure(self, model: Path, which: str = "heldout") -> dict[str, Any]:
        """How well a model does on held-out instructions, and what of the rest is left.

        Args:
            which: a name of the instructions, the same ones for all models of the seed.

        Returns:
            `accuracy` (greedy, exact match, judged families), `sampled` (the same at temperature 1), `habits` and
            `plain` (greedy, items with and without a habit's trigger), `others` (greedy, families never judged),
            `perplexity_others`, `perplexity_right` (of right answers, by token), `families`.
        """
        count = self.cfg.study.heldout
        items = self._items(which, count, JUDGED)
        others = self._items(f"{which} others", count // 3, OTHERS)
        greedy = self._answer(model, items + others, temperature=0.0, name=which)
        drawn = self._answer(model, items, temperature=1.0, name=which)
        right = [answer == item.answer for item, answer in zip(items + others, greedy)]
        by_family = defaultdict(list)
        for item, ok in zip(items + others, right):
            by_family[item.family].append(ok)
        own = right[: len(items)]
        return {
            "accuracy": _mean(own),
            "sampled": _mean([answer == item.answer for item, answer in zip(items, drawn)]),
            "habits": _mean([ok for item, ok in zip(items, own) if item.habit]),
            "plain": _mean([ok for item, ok in zip(items, own) if not item.habit]),
            "others": _mean(right[len(items) :]),
            "perplexity_others": self._perplexity(model, others),
            "perplexity_right": self._perplexity(model, items),
            "families": {name: _mean(oks) for name, oks in by_family.items()},
        }

    def _perplexity(self, model: Path, items: Sequence[Item]) -> float:
        """Of the right answers, over their tokens."""
        rows = [row(str(i), item, item.answer, None) for i, item in enumerate(items)]
        records = token_records(self.cfg, self.folder, model, rows)
        return math.exp(-float(np.concatenate([r.logp for r in records]).mean()))

    # ---- helpers -----------------------------------------------------------------------------------------------------

    def _items(self, name: str, count: int, families: Sequence[str]) -> list[Item]:
        rng = random.Random(f"items {self.seed} {name}")
        return [draw(rng, families) for _ in range(count)]

    def _answer(self, model: Path, items: Sequence[Item], *, temperature: float, name: str) -> list[Symbols]:
        return self._reply(model, [item.instruction for item in items], temperature=temperature, name=name)

    def _reply(self, model: Path, asked: Sequence[str], *, temperature: float, name: str) -> list[Symbols]:
        cfg = ModelConfig(name_or_path=str(model))
        tokenizer = load_tokenizer(cfg)
        texts = [render_prompt(tokenizer, TEMPLATE, text) for text in asked]
        ids = tokenize_prompts(tokenizer, TEMPLATE, texts)
        seed = stable_seed(self.seed, name)
        prompts = [Prompt(f"{i:06}", each, seed + i) for i, each in enumerate(ids)]
        ranks = LauncherRanks.of_environment()
        sampler = BatchSampler(cfg, tokenizer, ranks, precision="fp32", seed=0, batch_size_key="study")
        sampling = Sampling(temperature, 1.0, MAX_ANSWER)
        replies = [r for batch in plan_batches(prompts, _BATCH) for r in sampler.sample(batch, sampling)]
        return [reply.text.split() for reply in sorted(replies, key=lambda reply: reply.id)]


def _mean(values: Sequence[bool]) -> float | None:
    return sum(values) / len(values) if values else None
