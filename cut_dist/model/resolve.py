"""From the name of a model to a local folder: the folder itself, the Hub's cache, the Hub, or a package.

Every rank calls `resolve_model`; on each machine one process downloads or converts, under a file lock, and
the others find what it left.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import os
from pathlib import Path

from filelock import FileLock

from cut_dist.cache import cache_root
from cut_dist.model.packaged import PACKAGED, convert_into
from cut_dist.wording import UserError

log = logging.getLogger(__name__)

# Weights as safetensors only (a *.bin is a pickle that runs code when loaded), and what the tokenizers read.
HUB_FILES = ["*.safetensors", "*.json", "*.jinja", "tokenizer.model", "*.tiktoken", "merges.txt", "vocab.txt"]
PROBE_SECONDS = 5.0

# Any one of these makes a folder worth handing on (a tokenizer may lie apart from its model).
MARKER_FILES = ("config.json", "tokenizer.json", "tokenizer.model", "tokenizer_config.json")


class ModelNotFound(UserError, FileNotFoundError):
    """No folder can be had for a model's name; the message names what was tried and the remedy."""


def resolve_model(name_or_path: str, revision: str | None = None) -> str:
    """Return a local folder in Hugging Face format (config.json, safetensors, tokenizer) for a model.

    Tried in order: an existing folder; the Hub's local cache; the cache of converted models; the Hub
    (safetensors, json and tokenizer files only); for the models of `PACKAGED`, the package, converted once.
    Call it before `HfDeepSpeedConfig` exists: under ZeRO-3 the conversion would load shards.

    Args:
        name_or_path: a folder, or a Hub name such as "HuggingFaceTB/SmolLM2-135M-Instruct".
        revision: branch, tag or commit on the Hub. A package holds no revisions, so a name with one never
            comes from a package.

    Raises:
        ModelNotFound: nothing that was tried has the model.
    """
    path = Path(name_or_path).expanduser()
    if path.is_dir():
        if not any((path / marker).is_file() for marker in MARKER_FILES):
            raise ModelNotFound(f"There is no model in the folder {name_or_path}. {_run_hint(path)}")
        return str(path)
    if _looks_like_path(name_or_path):
        raise ModelNotFound(f"There is no model folder {name_or_path}. {_run_hint(path)}")

    found = _find_cached(name_or_path, revision)
    if found:
        return found
    locks = cache_root() / "models"
    locks.mkdir(parents=True, exist_ok=True)
    # Outside the lock, so that the ranks of a machine without a network wait all at the same time.
    problem = _probe_hub(name_or_path, revision)
    with FileLock(str(locks / f"{_slug(name_or_path)}.lock")):
        found = _find_cached(name_or_path, revision)
        if found:
            return found
        if problem is None:
            return _download(name_or_path, revision)
        if name_or_path in PACKAGED and revision is None:
            return _convert_packaged(name_or_path, problem)
    raise ModelNotFound(_not_found_message(name_or_path, revision, problem))


def converted_folder(name: str) -> Path:
    """Where the conversion of a packaged model lies; a new package version gets a new folder."""
    packaged = PACKAGED[name]
    return cache_root() / "models" / f"{_slug(name)}--{packaged.package}-{packaged.version}"


def _slug(name: str) -> str:
    return name.replace("/", "--")


def _looks_like_path(name: str) -> bool:
    """Hub names have one slash at most and do not begin like a path."""
    return name.startswith((".", "~", os.sep)) or name.count("/") > 1 or Path(name).parts[0] == "runs"


def _run_hint(path: Path) -> str:
    """Say which command makes the model, when the path has the form <root>/<experiment>/<run name>/model."""
    parts = path.parts
    if len(parts) < 4 or parts[-1] != "model":
        return "Give an existing folder or the name of a model on the Hugging Face Hub in model.name_or_path."
    experiment, run = parts[-3], parts[-2]
    state = "has not finished" if path.parent.is_dir() else "has not been run here"
    return (
        f"It is made by the run {experiment}/{run}, which {state}: run `deepspeed launch/train.py "
        f"+experiment={experiment}` first, or give another model with model.name_or_path=..."
    )


def _find_cached(name: str, revision: str | None) -> str | None:
    """The complete folder of an earlier download or conversion, if there is one; asks no network."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        snapshot = Path(snapshot_download(name, revision=revision, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError):
        snapshot = None
    if snapshot is not None and _is_complete(snapshot):
        return str(snapshot)
    if name in PACKAGED and revision is None and _is_complete(converted_folder(name)):
        return str(converted_folder(name))
    return None


def _is_complete(folder: Path) -> bool:
    """Whether config, tokenizer and all weights are there; the Hub's cache keeps partial snapshots too."""
    if not (folder / "config.json").is_file():
        return False
    tokenizers = (["tokenizer.json"], ["tokenizer.model"], ["vocab.json", "merges.txt"], ["vocab.txt"])
    if not any(all((folder / name).is_file() for name in names) for names in tokenizers):
        return False
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return (folder / "model.safetensors").is_file()
    shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    return all((folder / shard).is_file() for shard in shards)


def _probe_hub(name: str, revision: str | None) -> str | None:
    """Ask the Hub once, briefly. None when the model can be downloaded, else a clause that says why not."""
    from huggingface_hub import HfApi, errors

    try:
        info = HfApi().model_info(name, revision=revision, timeout=PROBE_SECONDS)
        if getattr(info, "gated", False):
            HfApi().auth_check(name)
    except errors.GatedRepoError:
        return "the Hub asks to accept the model's licence on its page and to log in with `hf auth login`"
    except errors.RevisionNotFoundError:
        return f"the Hub has no revision {revision!r} of it"
    except (errors.RepositoryNotFoundError, errors.HFValidationError):
        return "the Hub has no such model, or it is private and needs `hf auth login`"
    except Exception as error:  # offline mode, no route, a proxy's answer: classes differ by HTTP client
        return f"the Hub could not be reached ({(str(error).splitlines() or [type(error).__name__])[0]})"
    if not any(file.rfilename.endswith(".safetensors") for file in info.siblings or []):
        return "the Hub has it without safetensors; pickled weights are not loaded"
    return None


def _download(name: str, revision: str | None) -> str:
    from huggingface_hub import snapshot_download

    log.info("Downloading %s from the Hugging Face Hub", name)
    return snapshot_download(name, revision=revision, allow_patterns=HUB_FILES)


def _not_found_message(name: str, revision: str | None, problem: str | None) -> str:
    wanted = name if revision is None else f"{name} at revision {revision}"
    message = (
        f"Model {wanted} was not found: no folder has that name, the Hub's cache lacks it, and {problem}. "
        "Give an existing folder in model.name_or_path, or fetch it once on a machine with a network."
    )
    if name in PACKAGED and revision is not None:
        message += f" Without model.revision the package {PACKAGED[name].package} would do."
    return message


def _convert_packaged(name: str, problem: str) -> str:
    """Convert the package's copy; the caller holds the lock."""
    packaged, target = PACKAGED[name], converted_folder(name)
    gguf = packaged.gguf_file()
    if gguf is None or importlib.util.find_spec("gguf") is None:
        raise ModelNotFound(
            f"Model {name} was not found: the Hub's cache lacks it, {problem}, and {packaged.package} "
            f"{packaged.version}, which holds it too, is not installed with gguf: `{packaged.install}`."
        )
    log.warning("%s: %s; converting the copy in %s (%s)", name, problem, packaged.package, packaged.note)
    convert_into(gguf, target)
    return str(target)
