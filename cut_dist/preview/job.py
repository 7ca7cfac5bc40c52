"""The job of launch/preview.py: a few triplets, and the data as a whole, as the trainer will see them."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console

from cut_dist.config import Config, ConfigError, PreviewJobConfig
from cut_dist.data.examples import Example
from cut_dist.data.packing import example_weights
from cut_dist.data.prepare import HELDOUT_PREFIX
from cut_dist.data.readers import read_triplets
from cut_dist.data.sampler import Sampler
from cut_dist.data.triplets import Triplet
from cut_dist.model.load import load_tokenizer
from cut_dist.objective_options import encoding, prepare_data
from cut_dist.preview import page, terminal
from cut_dist.preview.summary import Grid, summary_grids
from cut_dist.preview.view import View, near, view_example
from cut_dist.wording import nearest

log = logging.getLogger(__name__)


def preview(cfg: PreviewJobConfig, console: Console | None = None) -> int:
    """Show what a training with `cfg` would see. One process, no DeepSpeed; nothing is trained or written but the page.

    Args:
        cfg: a training configuration and what to show of it. With `preview.forward=false` no weights are loaded.
        console: where to print; the terminal by default.

    Raises:
        ConfigError: there is nothing to show, or no place to write the page.
    """
    target = _page_path(cfg.preview.html)
    tokenizer = load_tokenizer(cfg.model)
    data = prepare_data(cfg, tokenizer)
    sampler = Sampler(len(data.train), cfg.train.global_batch_size, cfg.seed, cfg.train.epochs, cfg.train.max_steps)
    shown = data.train if cfg.preview.split == "train" else data.heldout
    chosen = find(shown, cfg.preview.ids) if cfg.preview.ids else choose(shown, cfg.preview.count, cfg.preview.seed)
    measured = [None] * len(chosen)
    if cfg.preview.forward:
        from cut_dist.preview.measure import measure  # the model's code, needed only here

        measured = measure(cfg, [shown[i] for i in chosen])
    triplets = _triplets(cfg)
    views = []
    for i, numbers in zip(chosen, measured):
        place = _place_in_run(i, data.train, sampler, cfg) if shown is data.train else _place_held_out(shown[i])
        views.append(view_example(shown[i], triplets[shown[i].id], place, numbers, cfg, tokenizer))
    grids = summary_grids(data, cfg, sampler)
    if cfg.preview.forward and encoding(cfg.objective) == "cut":
        grids.append(_inappropriate(views, cfg.objective.lam))
    terminal.show(cfg.run.experiment, _settings(cfg), grids, views, console or Console())
    if target:
        target.write_text(page.render(cfg.run.experiment, _settings(cfg), grids, views), encoding="utf-8")
        log.info("page written to %s", target)
    return 0


def choose(examples: Sequence[Example], count: int, seed: int) -> list[int]:
    """Draw examples by a seed: a quarter Align-P, at least one, the others Align-N, as far as there are so many.

    Returns:
        Indices, in order.
    """
    if not examples:
        raise ConfigError("preview.split=heldout, but this configuration holds nothing out; use preview.split=train.")
    order = np.random.default_rng(seed).permutation(len(examples)).tolist()
    negative = [i for i in order if examples[i].is_negative]
    positive = [i for i in order if not examples[i].is_negative]
    quarter = min(len(positive), max(1, count // 4)) if count > 1 else 0
    mixed = negative[: count - quarter] + positive[:quarter]
    return sorted([*mixed, *positive[quarter:]][:count])


def find(examples: Sequence[Example], ids: Sequence[str | int]) -> list[int]:
    """Indices of the examples of these ids, in the order of the ids."""
    indices = {example.id: index for index, example in enumerate(examples)}
    for id in map(str, ids):
        if id not in indices:
            match = nearest(id, indices)
            hint = f"; did you mean '{match}'?" if match else ", or its row was left out (see the log)."
            raise ConfigError(f"preview.ids: no example of preview.split has the id '{id}'{hint}")
    return [indices[str(id)] for id in ids]


def _place_in_run(index: int, train: Sequence[Example], sampler: Sampler, cfg: Config) -> str:
    """When a training example comes first, and what each of its response tokens weighs in that global batch."""
    position = int(np.flatnonzero(sampler.epoch_order(0) == index)[0])
    if position >= sampler.total_examples:
        return f"not reached within the run's {sampler.total_steps} steps"
    step = position // sampler.batch_size
    batch = sampler.batch(step).tolist()
    weight = example_weights([train[i] for i in batch], cfg.objective.reduction)[batch.index(index)]
    if cfg.objective.reduction == "token_mean":
        share = f"{sum(len(train[i].response_ids) for i in batch):,} response tokens of the batch"
    else:
        share = f"({len(batch)} examples × {len(train[index].response_ids)} tokens)"
    where = f"first in step {step + 1:,} of {sampler.total_steps:,}"
    if cfg.objective.name == "ilf_dpo":
        return f"{where}; the pair weighs 1/{len(batch)} there"
    return f"{where}; each response token weighs 1/{share} = {weight:.3g} there"


def _place_held_out(example: Example) -> str:
    return f"held out; an evaluation takes the mean over its {len(example.response_ids)} response tokens"


def _triplets(cfg: Config) -> dict[str, Triplet]:
    """Example id → the row as it was read."""
    data = cfg.data
    found = {}
    for path, prefix in ((data.path, ""), (data.heldout_path, HELDOUT_PREFIX)):
        if path:
            rows, _ = read_triplets(path, format=data.format, columns=data.columns, split=data.split)
            found |= {prefix + row.id: row for row in rows}
    return found


def _inappropriate(views: Sequence[View], lam: float) -> Grid:
    tokens = [token for view in views if view.is_negative for token in view.tokens]
    rows = []
    for name, inappropriate in (("inappropriate", True), ("others", False)):
        p = [math.exp(token.logp) for token in tokens if token.inappropriate == inappropriate]
        share, mean = (f"{len(p) / len(tokens):.0%}", f"{np.mean(p):.3f}") if p else ("0%", "–")
        rows.append((name, f"{len(p):,}", share, mean))
    return Grid(f"Align-N tokens below, λ = {lam:g}", ("", "tokens", "share", "mean p(x)"), rows)


def _settings(cfg: Config) -> list[str]:
    o, data = cfg.objective, cfg.data
    contrast = f"fake judgment “{o.fake_judgment}”" if o.contrast == "fake" else "the instruction context"
    loss = f"λ = {o.lam:g}, α = {o.alpha:g}, γ = {o.gamma:g}; contrast: {contrast}; reduction {o.reduction}"
    if o.without:
        loss += f". Trained without {o.without}; what is shown of tokens is CUT as a whole"
    if encoding(o) == "hindsight":
        loss = f"CUT without l1: likelihood of a response, given its judgment where it has one; reduction {o.reduction}"
    if o.name == "judge":
        loss = f"an AI judge: likelihood of the judgment and the decision; reduction {o.reduction}"
    elif o.name != "cut":
        loss = f"objective {o.name}; reduction {o.reduction}"
    model = cfg.model.name_or_path or "with random weights"
    return [f"model {model}; data {near(data.path)}; template {data.template}; seed {cfg.seed}", loss]


def _page_path(html: str | None) -> Path | None:
    """Where the page goes, found out before the model is loaded for nothing."""
    if html is None:
        return None
    path = Path(html)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"preview.html={html}: {error}.") from error
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise ConfigError(f"preview.html={html}: must be a file in a folder that can be written.")
    return path
