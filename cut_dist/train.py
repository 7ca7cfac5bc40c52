"""Training: triplets in, an aligned Hugging Face model out. Read `run_training` from top to bottom."""

from __future__ import annotations

import logging
import math
import os
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist

from cut_dist import evaluate, own_loss, report
from cut_dist.config import Config
from cut_dist.data.ahead import made_ahead
from cut_dist.data.examples import Example, Prepared
from cut_dist.data.objectives import is_measured_apart
from cut_dist.data.packing import PackedBatch, rank_micro_batches
from cut_dist.data.sampler import Sampler
from cut_dist.engine import gradients
from cut_dist.engine.build import build_engine, set_lr
from cut_dist.engine.launch import Ranks, broadcast_object, start_process, stop_process
from cut_dist.engine.state import full_state_dict, load_checkpoint, on_main, save_checkpoint
from cut_dist.export import export_model
from cut_dist.heartbeat import Heartbeat
from cut_dist.model.load import Tokenizer, load_tokenizer
from cut_dist.objective_options import encoding, packing_options, prepare_data, training_options
from cut_dist.process import StopSignal, remove_shared_buffers
from cut_dist.recorder import Recorder, read_evaluations
from cut_dist.run_start import CHECKPOINTS, Start, open_run
from cut_dist.schedule import lr_at
from cut_dist.step_stats import SUMS, micro_batch_sums, step_metrics
from cut_dist.throughput import ModelShape, model_shape

log = logging.getLogger(__name__)

NOT_FINITE, STOP, GRADIENT_SQUARE = (SUMS.index(name) for name in ("not_finite", "stop", "gradient_square"))


def train(cfg: Config) -> int:
    """Run, or continue, the training that `cfg` describes, on every rank that the launcher started.

    Returns:
        The process's exit status: 0 when the run finished, was finished already, or stopped cleanly because it was
        asked to; 1 when it can't go on, which the log explains.
    """
    stop = StopSignal()
    tokenizer = load_tokenizer(cfg.model)
    data = prepare_data(cfg, tokenizer)
    ranks = start_process(cfg.run.timeout_minutes)
    try:
        status = train_with(cfg, tokenizer, data, ranks, stop)
    finally:
        remove_shared_buffers(int(os.environ["MASTER_PORT"]))
    # only here: a rank that failed must end at once, without waiting for the others, so that the launcher ends them
    stop_process()
    return status


def train_with(cfg: Config, tokenizer: Tokenizer, data: Prepared, ranks: Ranks, stop: StopSignal) -> int:
    """`train` within a process group that is there already; a process may train several models one after the other."""
    with ExitStack() as held:  # rank 0 holds the run's folder
        start = open_run(cfg, data, ranks.world_size, held) if ranks.is_main else None
        start = broadcast_object(start, ranks)
        if ranks.is_main:
            log.log(logging.ERROR if start.status == "refused" else logging.INFO, start.message)
        recorder = Recorder(cfg, data, start, ranks.world_size) if ranks.is_main and start.goes_on else None
        status = 1
        try:
            if start.goes_on:
                with Heartbeat(Path(start.folder), ranks, cfg.run.timeout_minutes, start.step) as beat:
                    status = run_training(cfg, tokenizer, data, ranks, recorder, start, stop, beat)
            elif start.status == "finished":
                status = 0
        finally:
            if recorder:
                recorder.close(status)
        if ranks.is_main and status == 0:
            report.show(Path(start.folder), read_evaluations(Path(start.folder)))
    return status


def run_training(
    cfg: Config, tokenizer: Tokenizer, data: Prepared, ranks: Ranks, recorder: Recorder | None, start: Start,
    stop: StopSignal, beat: Heartbeat,
) -> int:  # fmt: skip
    """The training loop. `recorder` is rank 0's. Returns the exit status."""
    # ---- what there is: model, optimizer, the order of the data ------------------------------------------------------
    engine = build_engine(cfg, ranks)
    if start.checkpoint:
        load_checkpoint(engine, ranks, Path(start.checkpoint))
    if cfg.objective.name == "ilf_dpo":
        data = own_loss.with_reference(engine, data, cfg, ranks, Path(start.folder), start.step)
    sampler = Sampler(len(data.train), cfg.train.global_batch_size, cfg.seed, cfg.train.epochs, cfg.train.max_steps)
    shape = model_shape(engine.module.causal_lm.config)
    step, total, saved = start.step, sampler.total_steps, start.step
    bad_steps, evaluated = start.bad_steps, start.evaluated
    warmup = cfg.train.warmup_steps or math.ceil((cfg.train.warmup_ratio or 0.0) * total)
    if recorder:
        recorder.describe(data, total, warmup, ranks, engine.module)
    if step == 0 and cfg.eval.at_start and evaluated is None:
        evaluated = run_evaluation(engine, tokenizer, data, cfg, ranks, recorder, step)
    if recorder:
        recorder.begin_progress(step, total)

    def batch_of(step: int) -> list[Example]:
        return [data.train[i] for i in sampler.batch(step)]

    packed = made_ahead(lambda step: pack_batch(batch_of(step), cfg, ranks), range(step, total))
    while step < total:
        # ---- one optimizer step over the global batch ----------------------------------------------------------------
        began = time.perf_counter()
        lr = lr_at(step, total_steps=total, base_lr=cfg.train.lr, schedule=cfg.train.schedule, warmup_steps=warmup,
                   min_lr_ratio=cfg.train.min_lr_ratio)  # fmt: skip
        set_lr(engine, lr)
        sums = accumulate(engine, next(packed), cfg, ranks, shape)
        sums[STOP] = stop.asked or bool(recorder and recorder.stop_asked())
        dist.all_reduce(sums)
        totals = sums.tolist()  # the trainer's one wait for the device; ZeRO has its own in the backward
        finite = totals[NOT_FINITE] == 0 and math.isfinite(totals[GRADIENT_SQUARE])
        (gradients.step if finite else gradients.discard)(engine)
        step += 1
        beat.step = step

        # ---- record --------------------------------------------------------------------------------------------------
        bad_steps = 0 if finite else bad_steps + 1
        if recorder:
            epoch = step * cfg.train.global_batch_size / sampler.num_examples
            metrics = step_metrics(totals, time.perf_counter() - began, ranks)
            recorder.step({"step": step, "epoch": epoch, "lr": lr, "skipped": not finite, **metrics}, total)
            if not finite:
                recorder.not_finite(step, batch_of(step - 1))
        if bad_steps >= cfg.train.max_bad_steps:
            if recorder:
                recorder.giving_up(bad_steps, saved)
            return 1

        # ---- once in a while: evaluate, checkpoint, stop -------------------------------------------------------------
        stopping = totals[STOP] > 0 or step >= (cfg.run.stop_after or math.inf)
        if cfg.eval.every and step % cfg.eval.every == 0:
            evaluated = run_evaluation(engine, tokenizer, data, cfg, ranks, recorder, step)
        due = cfg.checkpoint.every and step % cfg.checkpoint.every == 0
        if due or stopping or (step == total and cfg.checkpoint.at_end):
            if recorder:
                recorder.metrics.sync()
            save_checkpoint(engine, ranks, Path(start.folder) / CHECKPOINTS, step, cfg.checkpoint.keep_last)
            saved = step
        if stopping:
            if recorder:
                log.info("stopped as asked after step %d; the same command continues", step)
            return 0

    # ---- the end: evaluate, export -----------------------------------------------------------------------------------
    if cfg.eval.at_end and evaluated != total:
        run_evaluation(engine, tokenizer, data, cfg, ranks, recorder, total)
    if cfg.run.export:
        run_export(engine, tokenizer, data.heldout or data.train, cfg, ranks, Path(start.folder) / "model")
    if recorder:
        recorder.finish(total)
    return 0


def pack_batch(batch: list[Example], cfg: Config, ranks: Ranks) -> list[PackedBatch]:
    """This rank's micro-batches of a global batch, on the host, ready to be copied to its device."""
    micro_batches = rank_micro_batches(
        batch,
        **packing_options(cfg.objective),
        reduction=cfg.objective.reduction,
        rank=ranks.rank,
        world_size=ranks.world_size,
        token_budget=cfg.train.micro_batch_tokens,
        beta=cfg.objective.beta if cfg.objective.name == "ilf_dpo" else None,
    )
    return micro_batches if ranks.device.type == "cpu" else [packed.pinned() for packed in micro_batches]


def accumulate(
    engine, micro_batches: list[PackedBatch], cfg: Config, ranks: Ranks, shape: ModelShape | None
) -> torch.Tensor:
    """Forward and backward of this rank's micro-batches of a global batch.

    The loss of a micro-batch is its share of the global mean, so gradients only have to be added up; DeepSpeed
    averages over ranks, which the factor undoes.

    Returns:
        (len(SUMS),) float64: this rank's sums, its share of the squared gradient norm, and whether all was finite.
    """
    options = training_options(cfg.objective)
    weight = {name: options[name] for name in ("alpha", "gamma")}
    sums = torch.zeros(len(SUMS), dtype=torch.float64, device=ranks.device)
    for i, micro_batch in enumerate(micro_batches):
        engine.set_gradient_accumulation_boundary(i == len(micro_batches) - 1)
        micro_batch = micro_batch.to(ranks.device)
        out = engine(micro_batch)
        engine.backward(out.loss * ranks.world_size, scale_wrt_gas=False)
        sums += micro_batch_sums(micro_batch, out, **weight, shape=shape)
    sums[GRADIENT_SQUARE] = gradients.local_square_sum(engine, ranks.world_size)
    sums[NOT_FINITE] = ~torch.isfinite(sums).all()
    return sums


def run_evaluation(
    engine, tokenizer: Tokenizer, data: Prepared, cfg: Config, ranks: Ranks, recorder: Recorder | None, step: int
) -> int:
    """Measure held-out triplets and a sample of the training ones, answer some prompts; a collective. Returns `step`.

    The held-out numbers say what generalises, those of the training sample what was learnt.
    """
    sample = evaluate.train_sample(data.train, cfg.eval.train_sample)
    own = {}
    if is_measured_apart(encoding(cfg.objective)):  # held-out triplets in CUT's contexts, and the objective's own loss
        parts = {"heldout": data.heldout_own, "train": sample}
        own = {split: own_loss.own_metrics(engine, examples, cfg, ranks) for split, examples in parts.items()}
        sample = []
    records = evaluate.token_records(engine, [*data.heldout, *sample], cfg, ranks)
    chosen = evaluate.generation_examples(data.heldout, cfg.eval.generations)
    generations = evaluate.generate(engine, tokenizer, chosen, cfg.eval.max_new_tokens, ranks)
    if recorder:
        splits = {"heldout": records[: len(data.heldout)], "train": records[len(data.heldout) :]}
        tokens = evaluate.judged_tokens(splits["heldout"], data.heldout, tokenizer, cfg.tracker.judged_tokens)
        recorder.evaluation(step, splits, generations, tokens, own)
    return step


def run_export(
    engine, tokenizer: Tokenizer, examples: list[Example], cfg: Config, ranks: Ranks, target: Path
) -> None:
    """Write the model to `target` and check it against the engine; a collective."""
    probe = replace(sorted(examples, key=lambda e: len(e.response_ids))[len(examples) // 2], also=())
    [record] = evaluate.token_records(engine, [probe], cfg, ranks)
    state = full_state_dict(engine, ranks)

    def export():
        nll = float(-record.logp.mean())
        export_model(engine.module.causal_lm, state, tokenizer, target, probe=probe, nll=nll)
        log.info("model written to %s and read back: same weights, same loss", target)

    on_main(ranks, export, "export the model")
