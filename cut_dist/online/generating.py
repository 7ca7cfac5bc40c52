"""The stage from instructions.jsonl to responses.jsonl: seeded requests, one process or many, nothing sampled twice."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterable, Sequence, Set
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from cut_dist.config import ModelConfig
from cut_dist.generators.base import Generation, GenerationRequest, stable_seed
from cut_dist.generators.make import make_generator
from cut_dist.lineage import model_record
from cut_dist.model.resolve import resolve_model
from cut_dist.online.config import OnlineConfig, StageConfig
from cut_dist.online.progress import StageProgress
from cut_dist.online.ranks import LauncherRanks, from_main, joined, wait_for_all
from cut_dist.online.records import Instruction, RecordError, RecordLog, Response, read_records
from cut_dist.online.stage import Stage, StageError, open_stage, partial_path, partial_paths
from cut_dist.wording import counted

log = logging.getLogger(__name__)


def generate_stage(cfg: OnlineConfig, source: Path, output: Path) -> int:
    """Answer the instructions of `source` into `output`, or go on with it; on every rank that a launcher started.

    Args:
        cfg: `model`, `generator`, `data.template`, `train.precision` and `seed` are read.
        source: rows of `Instruction`.
        output: rows of `Response`, `generator.samples` for each instruction, in the order of the source.

    Returns:
        The exit status of this rank.

    Raises:
        RecordError, StageError: the files can't be used as they are.
        ConfigError, DataError, ModelOutputError: it can't be generated; the message says why.
    """
    ranks = LauncherRanks.of_environment()
    if cfg.generator.name != "hf":  # the others spread the work themselves
        if not ranks.is_main:
            return 0
        ranks = LauncherRanks()
    # what a generator keeps beside the output is looked for by this key
    cfg = dataclasses.replace(cfg, stage=StageConfig(str(source), str(output)))
    with joined(ranks), ExitStack() as held:
        stage = _open(cfg, source, output, ranks, held) if ranks.is_main else None
        done = from_main(set(stage.rows) if stage and not stage.done else None, ranks)
        if done is None:
            return 0  # all is there already, or rank 0 could not begin
        instructions = read_records(source, Instruction)
        requests = make_requests(instructions, cfg.generator.samples, cfg.seed)
        own = stage or held.enter_context(RecordLog(partial_path(output, ranks.rank), Response))
        _answer(cfg, instructions, requests, done, own.append, ranks)
        wait_for_all(ranks)
        if stage:
            _finish(stage, requests)
    return 0


def make_requests(instructions: Sequence[Instruction], samples: int, seed: int) -> list[GenerationRequest]:
    """One request a sample: ids `<id>`, `<id>#2`, ...; each seed is a function of `seed` and that id."""
    return [
        GenerationRequest(id, instruction.instruction, stable_seed(seed, id))
        for instruction in instructions
        for id in _response_ids(instruction, samples)
    ]


def generation_settings(cfg: OnlineConfig) -> dict[str, Any]:
    """What the responses depend on beside the instructions; a stage goes on with the same only."""
    generator, name = cfg.generator, cfg.generator.name
    settings = {
        "generator": name,
        "temperature": generator.temperature,
        "top_p": generator.top_p,
        "max_new_tokens": generator.max_new_tokens,
        "samples": generator.samples,
        "seed": cfg.seed,
    }
    if name == "endpoint":
        settings |= {"model": generator.endpoint.model, "api": generator.api}
        if generator.serve:  # a server of the round's own model
            settings["weights"] = _weights(cfg.model)
    else:
        settings |= {"model": _weights(cfg.model), "tokenizer": cfg.model.tokenizer, "precision": cfg.train.precision}
    if name == "hf":
        settings["batch_size"] = generator.batch_size
    if name != "endpoint" or generator.api == "completions":
        settings["template"] = cfg.data.template
    return settings


def _weights(model: ModelConfig) -> dict[str, Any]:
    """What tells a model from others: sizes and seed make random weights, hashes of its files all others."""
    if model.random_init is not None:
        return dict(model.random_init)
    return {**model_record(resolve_model(model.name_or_path, model.revision)), "name": model.name_or_path}


def _open(cfg: OnlineConfig, source: Path, output: Path, ranks: LauncherRanks, held: ExitStack) -> Stage:
    try:
        instructions = read_records(source, Instruction)
        _require_unique(make_requests(instructions, cfg.generator.samples, cfg.seed), source)
        settings = generation_settings(cfg)
        stage = held.enter_context(open_stage("generate", output, Response, {"instructions": source}, settings))
    except Exception:
        from_main(None, ranks)  # which lets the others end
        raise
    if stage.done:
        log.info("%s is there already, made of the same instructions in the same way", output)
    return stage


def _answer(
    cfg: OnlineConfig,
    instructions: Sequence[Instruction],
    requests: Sequence[GenerationRequest],
    done: Set[str],
    append: Callable[[Iterable[Response]], None],
    ranks: LauncherRanks,
) -> None:
    """Let the generator answer and write each group down. What is counted is rank 0's share."""
    asked = {id: each for each in instructions for id in _response_ids(each, cfg.generator.samples)}
    share = -(-(len(requests) - len(done)) // ranks.world_size)
    with StageProgress("generated", "response", share) as progress:
        for group in make_generator(cfg).generate(requests, done):
            append([_response(generation, asked[generation.id]) for generation in group])
            progress.advance(len(group), sum(generation.response_tokens for generation in group))


def _response(generation: Generation, instruction: Instruction) -> Response:
    return Response(
        id=generation.id,
        instruction_id=instruction.id,
        instruction=instruction.instruction,
        response=generation.response,
        finish_reason=generation.finish_reason,
        prompt_tokens=generation.prompt_tokens,
        response_tokens=generation.response_tokens,
        sampling=generation.sampling,
        metadata=instruction.metadata,
    )


def _finish(stage: Stage, requests: Sequence[GenerationRequest]) -> None:
    """Gather what all ranks wrote down; rank 0 alone, once all are through."""
    rows = dict(stage.rows)
    for path in partial_paths(stage.output):
        if path != stage.log.path:
            with RecordLog(path, Response) as other:
                rows = other.rows | rows  # what was written down first counts
    missing = [request.id for request in requests if request.id not in rows]
    if missing:
        number = counted(len(missing), "response")
        raise StageError(f"{stage.output}: {number} missing ({missing[0]}, ...): start the same command again")
    ordered = [rows[request.id] for request in requests]
    counts = {
        "responses": len(ordered),
        "cut_at_max_new_tokens": sum(row.finish_reason == "length" for row in ordered),
        "empty": sum(not row.response.strip() for row in ordered),
        "prompt_tokens": sum(row.prompt_tokens for row in ordered),
        "response_tokens": sum(row.response_tokens for row in ordered),
    }
    stage.finish(ordered, counts, cost=sum(row.sampling.get("cost", 0.0) for row in ordered))
    log.info("%s: %s", stage.output, ", ".join(f"{name} {count:,}" for name, count in counts.items()))


def _response_ids(instruction: Instruction, samples: int) -> list[str]:
    return [instruction.id, *(f"{instruction.id}#{number}" for number in range(2, samples + 1))]


def _require_unique(requests: Sequence[GenerationRequest], source: Path) -> None:
    seen = set()
    for request in requests:
        if request.id in seen:
            raise RecordError(f"{source}: two responses would have the id {request.id!r}; give the instructions others")
        seen.add(request.id)
