"""From the data config to the examples that are trained on and held out, made once and cached by content.

Whoever comes first prepares under a file lock, everyone else waits for the lock and reads the result: there
is no rank logic here, no collective and no timeout.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cut_dist.data.cache import REJECTS, cache_key, load_prepared, lock, prepared_root, save_prepared
from cut_dist.data.encode import Encoded, EncodingRules, encode_triplets
from cut_dist.data.examples import Example, Prepared, content_hash
from cut_dist.data.objectives import NO_REFINEMENT, OBJECTIVES, is_measured_apart
from cut_dist.data.readers import read_triplets
from cut_dist.data.templates import Tokenizer
from cut_dist.data.triplets import BadRowsError, DataError, NoRowsLeft, Reject, Triplet, reject_table
from cut_dist.wording import counted

if TYPE_CHECKING:
    from cut_dist.config import DataConfig

logger = logging.getLogger(__name__)

HELDOUT_PREFIX = "heldout/"  # ids of a held-out file, which may number its rows as the training file does
_MANY_REJECTS = 0.2
# The fields of the data config that the result depends on, besides the files' bytes.
_SETTINGS = (
    "path",
    "format",
    "split",
    "template",
    "heldout_path",
    "heldout_size",
    "max_length",
    "max_judgment_tokens",
    "align_p_ratio",
    "on_bad_row",
    "on_overlong",
    "limit",
)
_SKIP_REMEDY = (
    "Correct these rows, or set data.on_bad_row=skip to train without them (counted and listed in a file)."
)
_NOTHING_LEFT = (
    "No other row is left to train on. Correct the file or, where its fields only have other names, say which is "
    "which: data=columns data.columns.instruction=... data.columns.response=... data.columns.judgment=..."
)
_OVERLONG_REMEDY = "Raise data.max_length, or set data.on_overlong to trim or drop."


def prepare(
    cfg: DataConfig, tokenizer: Tokenizer, *, seed: int, fake_judgment: str, objective: str = "cut"
) -> Prepared:
    """Read, validate, tokenise, hold out and down-sample triplets, or take the result from the cache.

    Args:
        cfg: the data config (`cut_dist.config.DataConfig`).
        tokenizer: the model's tokenizer.
        seed: decides which rows are held out and which Align-P rows are kept; the order of the file does not.
        fake_judgment: positive judgment of the fake context (`objective.fake_judgment`).
        objective: `objective.name`, which decides what of each triplet is learned.

    Returns:
        The data set; equal input gives an equal one on every machine and rank.

    Raises:
        BadRowsError: bad rows under on_bad_row=error, or over-long ones under on_overlong=error.
        DataError: a file or setting cannot be used; `NoRowsLeft`: no row is left to train on.
    """
    settings = {name: getattr(cfg, name) for name in _SETTINGS}
    settings |= {"columns": dict(cfg.columns or {}), "seed": seed, "fake_judgment": fake_judgment}
    if objective != "cut":  # else as before, so that what was prepared then is found
        settings["objective"] = objective
    contents = [_content_of(path, cfg) for path in (cfg.path, cfg.heldout_path) if path]
    folder = prepared_root(cfg.cache_dir) / cache_key(settings, contents, tokenizer)
    prepared = load_prepared(folder)
    if prepared is None:
        with lock(folder):
            prepared = load_prepared(folder) if folder.exists() else None
            if prepared is None:
                prepared = _build(cfg, tokenizer, seed, fake_judgment, objective)
                save_prepared(folder, prepared)
    _log_summary(prepared, cfg, folder)
    return prepared


def encoding_rules(cfg: DataConfig, fake_judgment: str, objective: str) -> EncodingRules:
    """What `encode_triplets` reads of a data config."""
    trims = cfg.on_overlong == "trim"
    return EncodingRules(cfg.template, fake_judgment, cfg.max_length, cfg.max_judgment_tokens, trims, objective)


def _build(cfg: DataConfig, tokenizer: Tokenizer, seed: int, fake_judgment: str, objective: str) -> Prepared:
    measured_as = OBJECTIVES[objective].measured_as
    rules = encoding_rules(cfg, fake_judgment, measured_as)
    rows, heldout_rows, rejects = _read(cfg)
    rows_read = len(rows) + len(heldout_rows) + len(rejects)
    limit = cfg.limit or len(rows)
    encoded = encode_triplets(tokenizer, rows[:limit], rules)
    encoded_heldout = encode_triplets(tokenizer, heldout_rows, rules)
    rejects = _in_file_order(rejects + encoded.rejects + encoded_heldout.rejects)
    overlong = encoded.overlong + encoded_heldout.overlong
    _apply_policies(cfg, rejects, overlong, rows_read, len(encoded.examples))

    usable, heldout = encoded.examples, [_with_heldout_id(e) for e in encoded_heldout.examples]
    if cfg.heldout_size and not cfg.heldout_path:
        usable, heldout = _hold_out(usable, cfg.heldout_size, seed)
    elif 0 < cfg.heldout_size < len(heldout):
        _, heldout = _hold_out(heldout, cfg.heldout_size, seed)
    train = usable if cfg.align_p_ratio is None else _downsample_align_p(usable, cfg.align_p_ratio, seed)
    num_downsampled, verdicts = len(usable) - len(train), {e.id: e.is_negative for e in train}
    own = Encoded()
    if is_measured_apart(objective):
        own = _encode_own(cfg, tokenizer, replace(rules, objective=objective), rows, train)
        train, rejects, overlong = own.examples, _in_file_order(rejects + own.rejects), overlong + own.overlong
    heldout_own = _heldout_own(tokenizer, replace(rules, objective=objective), rows, heldout_rows, heldout)
    counts = {
        "rows_read": rows_read,
        "rejected": len(rejects),
        "over_limit": len(rows) - len(rows[:limit]),
        "heldout_not_chosen": len(encoded_heldout.examples) - len(heldout) if cfg.heldout_path else 0,
        "overlong_dropped": len(overlong),
        "overlong_trimmed": encoded.num_trimmed + encoded_heldout.num_trimmed,
        "align_p_downsampled_away": num_downsampled,
        "left_out_by_objective": own.num_left_out,
        "kept": len(train) + len(heldout),
        "train": len(train),
        "align_p": sum(not verdicts[e.id] for e in train),
        "align_n": sum(verdicts[e.id] for e in train),
        "heldout": len(heldout),
        "heldout_align_p": sum(not e.is_negative for e in heldout),
        "heldout_align_n": sum(e.is_negative for e in heldout),
    }
    if not train:
        why = [_counts_line(counts), reject_table(rejects + overlong)]
        if counts["left_out_by_objective"]:
            why.append(f"objective={objective} has no use for the others: docs/objectives.md says what it trains on.")
        raise NoRowsLeft(f"{cfg.path}: no row is left to train on: " + "\n".join(text for text in why if text))
    if objective == "judge":  # verdicts have chosen and counted the rows; all are learned alike
        train, heldout = ([replace(e, is_negative=False) for e in part] for part in (train, heldout))
    hashed = content_hash(train, heldout, heldout_own)
    return Prepared(train, heldout, rejects + overlong, counts, hashed, heldout_own)


def _encode_own(
    cfg: DataConfig, tokenizer: Tokenizer, rules: EncodingRules, rows: Sequence[Triplet], chosen: Sequence[Example]
) -> Encoded:
    """The chosen rows as the objective trains on them.

    Which rows are usable, held out or down-sampled away is decided before, as under CUT: all methods see the same.
    """
    ids = {example.id for example in chosen}
    own = encode_triplets(tokenizer, [row for row in rows if row.id in ids], rules)
    if any(reject.reason == NO_REFINEMENT for reject in own.rejects) and cfg.on_bad_row == "error":
        raise BadRowsError(own.rejects, len(ids), _refine_remedy(cfg.path, rules.objective))
    _apply_policies(cfg, own.rejects, own.overlong, len(ids), len(own.examples))
    return own


def _heldout_own(
    tokenizer: Tokenizer, rules: EncodingRules, rows: Sequence[Triplet], heldout_rows: Sequence[Triplet],
    heldout: Sequence[Example],
) -> list[Example]:  # fmt: skip
    """Held-out rows as the objective would train on them, for its own loss; without those it can't."""
    if not is_measured_apart(rules.objective):
        return []
    ids = {example.id for example in heldout}
    own = encode_triplets(tokenizer, [row for row in rows if row.id in ids], rules).examples
    named = [replace(row, id=HELDOUT_PREFIX + row.id) for row in heldout_rows]
    return own + encode_triplets(tokenizer, [row for row in named if row.id in ids], rules).examples


def _refine_remedy(path: str, objective: str) -> str:
    return (
        f"objective={objective} learns refinements of Align-N responses. Have them made, and train with "
        "data.path=refined.jsonl: python launch/refine.py model.name_or_path=<model> "
        f"stage.input={path} stage.output=refined.jsonl"
    )


def _read(cfg: DataConfig) -> tuple[list[Triplet], list[Triplet], list[Reject]]:
    """Rows of the training file, of the held-out file, and what is wrong in either."""
    rows, rejects = read_triplets(cfg.path, format=cfg.format, columns=cfg.columns, split=cfg.split)
    if not cfg.heldout_path:
        return rows, [], rejects
    heldout, bad = read_triplets(cfg.heldout_path, format=cfg.format, columns=cfg.columns, split=cfg.split)
    rows, leaked = _without_heldout_rows(rows, heldout)
    return rows, heldout, rejects + leaked + bad


def _apply_policies(
    cfg: DataConfig, rejects: list[Reject], overlong: list[Reject], rows_read: int, num_usable: int
) -> None:
    if rejects and not num_usable and not overlong:
        raise BadRowsError(rejects, rows_read, _NOTHING_LEFT)
    if rejects and cfg.on_bad_row == "error":
        raise BadRowsError(rejects, rows_read, _SKIP_REMEDY)
    if overlong and cfg.on_overlong == "error":
        raise BadRowsError(overlong, rows_read, _OVERLONG_REMEDY)


def _without_heldout_rows(
    triplets: Sequence[Triplet], heldout: Sequence[Triplet]
) -> tuple[list[Triplet], list[Reject]]:
    """Training rows without those that stand, instruction and response, in the held-out file too."""
    known = {(t.instruction, t.response): t.source for t in heldout}
    kept, rejects = [], []
    for triplet in triplets:
        source = known.get((triplet.instruction, triplet.response))
        if source is None:
            kept.append(triplet)
        else:
            rejects.append(Reject.of(triplet, f"held out too: the same row is at {source}"))
    return kept, rejects


def _with_heldout_id(example: Example) -> Example:
    return replace(example, id=HELDOUT_PREFIX + example.id)


def _hold_out(examples: list[Example], size: int, seed: int) -> tuple[list[Example], list[Example]]:
    """Set `size` examples apart: Align-P and Align-N in proportion, at least one of each if possible."""
    if size >= len(examples):
        have = counted(len(examples), "usable row")
        raise DataError(f"data.heldout_size={size} leaves nothing of {have} to train on; set it lower, or bring more")
    negative = [e.id for e in examples if e.is_negative]
    positive = [e.id for e in examples if not e.is_negative]
    num_negative = round(size * len(negative) / len(examples))
    if negative and positive and size > 1:
        num_negative = min(max(num_negative, 1), size - 1)
    chosen = {
        *_seeded_choice(negative, num_negative, seed, "heldout"),
        *_seeded_choice(positive, size - num_negative, seed, "heldout"),
    }
    return [e for e in examples if e.id not in chosen], [e for e in examples if e.id in chosen]


def _downsample_align_p(examples: list[Example], ratio: float, seed: int) -> list[Example]:
    """Keep int(ratio · Align-N) of the Align-P examples, as the released code does, where there are more."""
    positive = [e.id for e in examples if not e.is_negative]
    num_kept = int((len(examples) - len(positive)) * ratio)
    kept = set(_seeded_choice(positive, num_kept, seed, "align_p"))
    return [e for e in examples if e.is_negative or e.id in kept]


def _seeded_choice(ids: list[str], size: int, seed: int, purpose: str) -> list[str]:
    """`size` of the ids by the order of a keyed hash: the choice depends on the ids, not on their order."""
    return sorted(ids, key=lambda id: hashlib.sha256(f"{seed}\0{purpose}\0{id}".encode()).digest())[:size]


def _in_file_order(rejects: list[Reject]) -> list[Reject]:
    files = {file: number for number, file in enumerate(dict.fromkeys(r.file for r in rejects))}
    return sorted(rejects, key=lambda r: (files[r.file], r.line, r.index or 0))


def _content_of(path: str, cfg: DataConfig) -> str:
    """Hash of what a path holds: a file's bytes, or the rows of a data set of the Hub."""
    if Path(path).is_file():
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    triplets, rejects = read_triplets(path, format=cfg.format, columns=cfg.columns, split=cfg.split)
    rows = [[t.id, t.instruction, t.response, t.judgment, t.refinement] for t in triplets]
    return hashlib.sha256(json.dumps([rows, [[r.place, r.reason] for r in rejects]]).encode()).hexdigest()


def _counts_line(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items() if count)


def _log_summary(prepared: Prepared, cfg: DataConfig, folder: Path) -> None:
    heldout = f", held out: {cfg.heldout_path}" if cfg.heldout_path else ""
    logger.info("data %s%s: %s", cfg.path, heldout, _counts_line(prepared.counts))
    if prepared.rejects:
        logger.warning(
            "not used: %s, all listed in %s:\n%s",
            counted(len(prepared.rejects), "row"),
            folder / REJECTS,
            reject_table(prepared.rejects),
        )
    if prepared.counts["rejected"] > _MANY_REJECTS * prepared.counts["rows_read"]:
        logger.warning(
            "more than a fifth of the rows are bad: is data.format=%s right for %s?", cfg.format, cfg.path
        )
