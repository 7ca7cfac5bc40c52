"""Prepared data sets on disk, found by what they were made from, whole or not at all.

A data set is a folder named by its key, with `tokens.safetensors` (all token ids end to end, with their
lengths), `index.json` (everything else, and the hashes) and, where rows were rejected, `rejects.jsonl` for
people to read. It is written beside its place and renamed, and every hash is checked when it is read.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.numpy import load, save

from cut_dist import durable
from cut_dist.cache import cache_root
from cut_dist.data.examples import Example, Prepared
from cut_dist.data.templates import Tokenizer
from cut_dist.data.triplets import Reject

logger = logging.getLogger(__name__)

# Raise it with every change that makes other tokens, choices or files out of the same input.
FORMAT_VERSION = 2

REJECTS = "rejects.jsonl"
_TOKENS = "tokens.safetensors"
_INDEX = "index.json"
_LISTS = ("train", "heldout", "heldout_own")  # of `Prepared`
_PROBE = "Perfect.\n\n  naïve 12 <s></s>"


def prepared_root(cache_dir: str | None) -> Path:
    """Where prepared data sets lie, with `data.cache_dir` as it is configured."""
    return cache_root(cache_dir) / "prepared"


def cache_key(settings: dict[str, object], contents: list[str], tokenizer: Tokenizer) -> str:
    """Name of a data set: sha256 of the settings, the files' content hashes and what the tokenizer does."""
    parts = [FORMAT_VERSION, settings, contents, _tokenizer_hash(tokenizer)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:40]


def _tokenizer_hash(tokenizer: Tokenizer) -> str:
    """Hash of vocabulary, rules, special tokens and chat template: what one tokenizer may differ in."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        rules = json.loads(backend.to_str())
        rules.pop("truncation", None)  # set by whoever called the tokenizer last, and not used here
        rules.pop("padding", None)
    else:
        rules = sorted(tokenizer.get_vocab().items())
    probe = tokenizer(_PROBE)["input_ids"]
    special = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
    parts = [type(tokenizer).__name__, rules, special, tokenizer.chat_template, probe]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Hold the right to write a data set. Waits as long as it takes, and says so once."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    held = FileLock(f"{folder}.lock")
    try:
        held.acquire(timeout=0)
    except Timeout:
        logger.info("another process prepares this data set; waiting for it (%s)", held.lock_file)
        held.acquire()
    try:
        yield
    finally:
        held.release()


def load_prepared(folder: Path) -> Prepared | None:
    """Read a data set, or None where there is none or where a hash is wrong (which is said)."""
    try:
        envelope = json.loads((folder / _INDEX).read_bytes())
        index, tokens = envelope["index"], (folder / _TOKENS).read_bytes()
        if _sha256(_dump(index)) != envelope["sha256"] or _sha256(tokens) != index["tokens_sha256"]:
            raise ValueError("its hash is wrong")
        arrays = load(tokens)
        train, heldout, own = (_unpack(arrays, name, index[name]) for name in _LISTS)
        rejects = [Reject(**reject) for reject in index["rejects"]]
        return Prepared(train, heldout, rejects, index["counts"], index["content_hash"], own)
    except FileNotFoundError:
        if folder.exists():
            logger.warning("the cached data set %s lacks a file; it is made anew", folder)
        return None
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        logger.warning("the cached data set %s cannot be used (%s); it is made anew", folder, error)
        return None


def save_prepared(folder: Path, prepared: Prepared) -> None:
    """Write a data set, holding `lock(folder)`; replacing a corrupt one and what a killed process left."""
    for leftover in folder.parent.glob(f".{folder.name}.*"):
        shutil.rmtree(leftover, ignore_errors=True)
    stage = folder.parent / f".{folder.name}.{os.getpid()}"
    stage.mkdir()
    lists = {name: getattr(prepared, name) for name in _LISTS}
    tokens = save({key: array for name, examples in lists.items() for key, array in _pack(name, examples).items()})
    index = {
        **{name: [[e.id, e.is_negative, len(e.also)] for e in examples] for name, examples in lists.items()},
        "rejects": [asdict(reject) for reject in prepared.rejects],
        "counts": prepared.counts,
        "content_hash": prepared.content_hash,
        "tokens_sha256": _sha256(tokens),
    }
    files = {_TOKENS: tokens, _INDEX: json.dumps({"index": index, "sha256": _sha256(_dump(index))}).encode()}
    if prepared.rejects:
        lines = [json.dumps({"place": r.place, **asdict(r)}, ensure_ascii=False) for r in prepared.rejects]
        files[REJECTS] = ("\n".join(lines) + "\n").encode("utf-8", "backslashreplace")
    for name, data in files.items():
        durable.write_file(stage / name, data)
    durable.sync_folder(stage)
    if folder.exists():
        folder.rename(folder.parent / f".{folder.name}.corrupt")
        shutil.rmtree(folder.parent / f".{folder.name}.corrupt", ignore_errors=True)
    stage.rename(folder)
    durable.sync_folder(folder.parent)


def _pack(name: str, examples: list[Example]) -> dict[str, np.ndarray]:
    """All token ids of a list end to end (each term's prompts, its response), and each piece's length."""
    terms = [term for example in examples for term in example.terms]
    pieces = [ids for term in terms for ids in (*term.prompt_ids.values(), term.response_ids)]
    tokens = np.concatenate(pieces) if pieces else np.zeros(0)
    return {
        f"{name}.tokens": tokens.astype(np.int32),
        f"{name}.lengths": np.asarray([len(ids) for ids in pieces], dtype=np.int64),
    }


def _unpack(arrays: dict[str, np.ndarray], name: str, rows: list[list]) -> list[Example]:
    pieces = iter(np.split(arrays[f"{name}.tokens"], np.cumsum(arrays[f"{name}.lengths"])[:-1]))

    def take(id: str, is_negative: bool) -> Example:
        contexts = ("instruction", "authentic", "fake") if is_negative else ("instruction",)
        return Example(id, is_negative, {context: next(pieces) for context in contexts}, next(pieces))

    examples = []
    for id, is_negative, num_also in rows:
        first = take(id, is_negative)
        examples.append(replace(first, also=tuple(take(id, is_negative) for _ in range(num_also))))
    return examples


def _dump(index: dict[str, object]) -> bytes:
    return json.dumps(index, sort_keys=True).encode()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
