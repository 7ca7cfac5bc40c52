"""The configuration of a run as typed dataclasses: what each key means, takes and goes together with.

Hydra composes the tree from conf/, and `to_config` turns it into a `Config`. conf/train.yaml holds the same
defaults, with a sentence for each key; a test keeps the two equal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from omegaconf import DictConfig, OmegaConf

from cut_dist.config_check import (
    ConfigError,
    check_name,
    from_tree,
    missing_keys,
    ranged,
    refuse_code,
    require,
    unknown_key,
)
from cut_dist.config_deepspeed import check_deepspeed
from cut_dist.run_identity import asset_path, auto_name, config_hash, identity, run_dir

__all__ = [
    "CheckpointConfig", "Config", "ConfigError", "DataConfig", "EvalConfig", "ModelConfig", "ObjectiveConfig",
    "PreviewConfig", "PreviewJobConfig", "RunConfig", "SweepConfig", "TrackerConfig", "TrainConfig", "asset_path",
    "auto_name", "config_hash", "identity", "run_dir", "to_config",
]  # fmt: skip

AnyConfig = TypeVar("AnyConfig", bound="Config")

# What model.random_init may set; the rest of the architecture stays as transformers' LlamaConfig has it.
RANDOM_INIT_KEYS = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "max_position_embeddings", "tie_word_embeddings",
)  # fmt: skip

DataFormat = Literal["auto", "cut_dist", "alpaca", "shepherd", "summarization", "ultrafeedback", "columns"]
TRIPLET_COLUMNS = ("id", "instruction", "input", "response", "judgment", "refinement")
ObjectiveName = Literal["cut", "judge", "sft", "hindsight", "forward_prediction", "ilf_mle", "ilf_dpo"]


@dataclass
class ModelConfig:
    """Which weights to start from (one of `name_or_path` and `random_init`) and how the decoder runs."""

    name_or_path: str | None = None  # local folder or Hub name
    revision: str | None = None  # branch, tag or commit on the Hub
    random_init: dict[str, int | bool] | None = None  # sizes of a Llama with random weights
    tokenizer: str | None = None  # folder or Hub name; null: name_or_path; "bytes": the built-in one
    attention: Literal["auto", "sdpa", "varlen", "flash"] = "auto"
    context_split: Literal["auto", "off"] = "auto"  # auto: layers compute no gradient for the fake context
    checkpointing: Literal["none", "selective", "full"] = "full"  # of activations, one decoder layer at a time

    def __post_init__(self) -> None:
        one = (self.name_or_path is None) != (self.random_init is None)
        remedy = "give model.name_or_path or model.random_init, and leave the other null"
        require(one, "model.name_or_path", self.name_or_path, remedy)
        require(self.name_or_path != "", "model.name_or_path", self.name_or_path, "must not be empty")
        for key, value in (self.random_init or {}).items():
            if key not in RANDOM_INIT_KEYS:
                raise unknown_key("model.random_init", key, RANDOM_INIT_KEYS)
            require(value >= 0, f"model.random_init.{key}", value, "must not be negative")
        needed = self.random_init is not None and self.tokenizer is None
        remedy = "a random model has no tokenizer of its own: name one, or 'bytes' for the built-in one"
        require(not needed, "model.tokenizer", self.tokenizer, remedy)


@dataclass
class DataConfig:
    """Which triplets to read, how to write them as prompts, and what happens to rows that don't fit."""

    path: str  # file, or what datasets.load_dataset takes where format is "columns"
    format: DataFormat = "auto"
    split: str = "train"  # of a dataset that has several
    columns: dict[str, str] | None = None  # our field -> column of the file; format "columns" only
    template: Literal["alpaca", "chat"] = "alpaca"
    heldout_path: str | None = None  # null: set heldout_size rows of path apart
    heldout_size: int = ranged(0, at_least=0)  # rows; with a heldout_path, 0 means all of its rows
    max_length: int = ranged(2048, at_least=16)  # tokens of prompt and response in the longest context
    max_judgment_tokens: int = ranged(1024, at_least=1)
    align_p_ratio: float | None = ranged(None, at_least=0)  # kept Align-P / Align-N; null keeps all
    on_bad_row: Literal["error", "skip"] = "error"
    on_overlong: Literal["trim", "drop", "error"] = "trim"  # trim: the instruction's oldest tokens go first
    limit: int | None = ranged(None, at_least=1)  # read no more rows than this
    cache_dir: str | None = None  # null: $CUT_DIST_CACHE or ~/.cache/cut_dist

    def __post_init__(self) -> None:
        require(self.path != "", "data.path", self.path, "must not be empty")
        require(self.split != "", "data.split", self.split, "must not be empty")
        fits = self.max_judgment_tokens < self.max_length
        remedy = f"must be less than data.max_length={self.max_length}, which the response needs too"
        require(fits, "data.max_judgment_tokens", self.max_judgment_tokens, remedy)
        rows_left = self.limit is None or self.heldout_path is not None or self.limit > self.heldout_size
        remedy = f"leaves no row beside data.heldout_size={self.heldout_size}"
        require(rows_left, "data.limit", self.limit, remedy)
        self._check_columns()

    def _check_columns(self) -> None:
        if self.format != "columns":
            remedy = "is read only with data.format=columns; set that, or data.columns=null"
            require(self.columns is None, "data.columns", self.columns, remedy)
            return
        for key in self.columns or {}:
            if key not in TRIPLET_COLUMNS:
                raise unknown_key("data.columns", key, TRIPLET_COLUMNS)
        complete = {"instruction", "response", "judgment"} <= set(self.columns or {})
        remedy = "must say which columns hold the instruction, the response and the judgment"
        require(complete, "data.columns", self.columns, remedy)


@dataclass
class ObjectiveConfig:
    """The loss; lam, alpha and gamma are the paper's (equations 5 and 6)."""

    name: ObjectiveName = "cut"  # under all others lam, alpha and gamma only measure
    # A token is inappropriate where p(y|x,j-) > lam * p(y|x,j+), and unlearned by alpha * p(y|x,j-)^gamma.
    lam: float = ranged(1.5, above=0, why="paper: 1.1 or 1.2")
    alpha: float = ranged(1.0, at_least=0, why="paper: 0.25, 0.5 or 1")
    gamma: float = ranged(0.5, at_least=0, why="paper: 0.25, 0.5, 1 or 2")
    contrast: Literal["fake", "instruction"] = "fake"  # the context that stands for j+
    # DualCUT: and only where also p(y|x,j-) > lam_instruction * p(y|x) and p(y|x,j-) > floor.
    lam_instruction: float | None = ranged(None, above=0, why="null makes no such test")
    floor: float = ranged(0.0, at_least=0, at_most=1, why="a probability; with 1 no token is inappropriate")
    without: Literal["l1", "l2_align_p", "l2_align_n", "detection", "dynamic_weight"] | None = None  # paper, table 4
    fake_judgment: str = "Perfect."  # under judge: what it learns to say of a satisfactory response, before "Yes."
    reduction: Literal["example_mean", "token_mean"] = "example_mean"
    beta: float = ranged(0.1, above=0)  # ilf_dpo: how fast a pair's loss falls with its margin

    def __post_init__(self) -> None:
        given = self.contrast != "fake" or self.fake_judgment.strip() != ""
        remedy = "contrast=fake needs one; to do without set objective.contrast=instruction"
        require(given, "objective.fake_judgment", self.fake_judgment, remedy)
        praise = self.name not in ("judge", "forward_prediction") or self.fake_judgment.strip() != ""
        remedy = f"objective={self.name} teaches it as the judgment of a satisfactory response"
        require(praise, "objective.fake_judgment", self.fake_judgment, remedy)
        remedy = f"leaves out a part of CUT, but objective.name is {self.name}; set it to null, or objective.name=cut"
        require(self.without is None or self.name == "cut", "objective.without", self.without, remedy)


@dataclass
class TrainConfig:
    """How long to train, in which batches, with which optimizer."""

    epochs: float = ranged(1.0, above=0)
    max_steps: int | None = ranged(None, at_least=1, why="null counts by train.epochs")  # wins over epochs
    global_batch_size: int = ranged(8, at_least=1)  # examples of one optimizer step, over all ranks
    micro_batch_tokens: int = ranged(8192, at_least=1)  # of one packed micro-batch on one rank, all contexts
    lr: float = ranged(1e-5, above=0, at_most=1, why="full-parameter runs take about 1e-6 to 1e-4")
    weight_decay: float = ranged(0.0, at_least=0)
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    eps: float = ranged(1e-8, above=0)
    schedule: Literal["cosine", "linear", "constant", "constant_with_warmup", "inverse_sqrt"] = "cosine"
    warmup_steps: int = ranged(0, at_least=0)
    warmup_ratio: float | None = ranged(None, at_least=0, at_most=1)  # share of all steps
    min_lr_ratio: float = ranged(0.0, at_least=0, at_most=1)  # floor of the decay as a share of lr
    max_grad_norm: float = ranged(1.0, at_least=0, why="0 switches clipping off")
    precision: Literal["auto", "bf16", "fp32"] = "auto"  # auto: bf16 where the accelerator has it
    max_bad_steps: int = ranged(3, at_least=1)  # consecutive non-finite steps before giving up

    def __post_init__(self) -> None:
        betas_ok = len(self.betas) == 2 and all(0 <= beta < 1 for beta in self.betas)
        require(betas_ok, "train.betas", self.betas, "must be two numbers, each at least 0 and below 1")
        steps, ratio = self.warmup_steps, self.warmup_ratio
        remedy = f"is set beside train.warmup_steps={steps}; set that to 0, or train.warmup_ratio=null"
        require(not (steps and ratio), "train.warmup_ratio", ratio, remedy)
        flat = self.schedule == "constant" and bool(steps or ratio)
        remedy = "has no warm-up; use constant_with_warmup, or train.warmup_steps=0 train.warmup_ratio=null"
        require(not flat, "train.schedule", self.schedule, remedy)


@dataclass
class EvalConfig:
    """When the held-out triplets are measured, and how many of their prompts are answered in full."""

    every: int = ranged(0, at_least=0, why="0 means only at the start and the end")  # steps
    at_start: bool = True
    at_end: bool = True
    train_sample: int = ranged(16, at_least=0)  # training triplets that are measured beside the held-out ones
    generations: int = ranged(2, at_least=0)  # held-out prompts answered greedily
    max_new_tokens: int = ranged(128, at_least=1)


@dataclass
class CheckpointConfig:
    """When a run is saved so that it can go on, and how many of the saves stay on disk."""

    every: int = ranged(100, at_least=0, why="0 means only at the end or on a stop")  # steps
    keep_last: int = ranged(2, at_least=2, why="with one, a damaged save would leave nothing to go back to")
    at_end: bool = True


@dataclass
class TrackerConfig:
    """Where metrics go besides metrics.jsonl, which is always written."""

    name: Literal["wandb", "tensorboard", "none"] = "wandb"
    mode: Literal["auto", "online", "offline"] = "auto"  # auto: offline without a key or a network
    project: str = "cut_dist"
    entity: str | None = None
    group: str | None = None
    tags: list[str] = field(default_factory=list)
    judged_tokens: int = ranged(1000, at_least=0, why="0 sends no table of tokens")  # rows, at each evaluation
    log_data: bool = False  # the triplets may be private
    log_model: bool = False  # weights are large

    def __post_init__(self) -> None:
        require(self.project != "", "tracker.project", self.project, "must not be empty")
        for tag in self.tags:
            require(0 < len(tag) <= 64, "tracker.tags", tag, "W&B takes tags of 1 to 64 characters")


@dataclass
class RunConfig:
    """Where the run lives, `<root>/<experiment>/<name>/`, and how it starts and stops."""

    root: str = "runs"
    experiment: str = "train"
    name: str = "auto"  # auto: "default", or made from the overrides that change the result
    resume: Literal["auto", "never"] = "auto"
    stop_after: int | None = ranged(None, at_least=1)  # checkpoint and stop cleanly after this step
    export: bool = True  # write the trained model in Hugging Face format
    timeout_minutes: float = ranged(30.0, above=0, at_most=1440)  # that ranks wait for each other

    def __post_init__(self) -> None:
        usable = self.root != "" and "\n" not in self.root
        require(usable, "run.root", self.root, "must be the path of a folder")
        check_name("run.experiment", self.experiment)
        check_name("run.name", self.name)


@dataclass
class SweepConfig:
    """Which values -m and launch/sweep.py try, where the jobs lie, how they are compared and run."""

    name: str | None = None  # null: run.experiment; the jobs lie in <root>/<name>/<job>/
    root: str = "sweeps"
    params: dict[str, Any] | None = None  # key -> values as on the command line
    metric: str = "p_inappropriate"  # of the held-out triplets, at a job's last evaluation
    direction: Literal["min", "max"] = "min"
    on_failure: Literal["continue", "stop"] = "continue"
    jobs_at_a_time: int = ranged(1, at_least=1)  # launch/sweep.py
    ranks_per_job: int | None = ranged(None, at_least=1)  # launch/sweep.py
    cluster: Literal["here", "slurm", "local"] = "here"  # launch/sweep.py; local: submitit without SLURM
    submitit: dict[str, Any] | None = None  # parameters of its executor

    def __post_init__(self) -> None:
        usable = self.root != "" and "\n" not in self.root
        require(usable, "sweep.root", self.root, "must be the path of a folder")
        if self.name is not None:
            check_name("sweep.name", self.name)
        told = not self.submitit or self.cluster != "here"
        require(told, "sweep.submitit", self.submitit, "is read only with sweep.cluster=slurm (or local)")


@dataclass
class Config:
    """Everything that launch/train.py needs; DeepSpeed's own keys stay a plain dict."""

    model: ModelConfig
    data: DataConfig
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    tracker: TrackerConfig = field(default_factory=TrackerConfig)
    run: RunConfig = field(default_factory=RunConfig)
    sweep: SweepConfig = field(default_factory=SweepConfig)
    deepspeed: dict[str, Any] = field(default_factory=lambda: {"zero_optimization": {"stage": 0}})
    seed: int = ranged(42, at_least=0, at_most=2**32 - 1)

    def __post_init__(self) -> None:
        heldout = self.data.heldout_size > 0 or self.data.heldout_path is not None
        evaluates = self.eval.at_start or self.eval.at_end or self.eval.every > 0
        remedy = (
            "leaves nothing to evaluate on: set more rows apart, name a data.heldout_path, or switch it off "
            "with eval.every=0 eval.at_start=false eval.at_end=false"
        )
        require(heldout or not evaluates, "data.heldout_size", self.data.heldout_size, remedy)
        check_deepspeed(self.deepspeed)


@dataclass
class PreviewConfig:
    """What launch/preview.py shows."""

    count: int = ranged(4, at_least=1)  # examples
    ids: list[str | int] = field(default_factory=list)  # show these instead of drawing
    split: Literal["train", "heldout"] = "train"
    html: str | None = None  # file to write besides the terminal
    forward: bool = True  # load the model and colour each response token by log p- minus log p+
    seed: int = ranged(0, at_least=0)  # which examples are drawn


@dataclass
class PreviewJobConfig(Config):
    """A training configuration and what to preview of it: `+experiment=...` means the same in both."""

    preview: PreviewConfig = field(default_factory=PreviewConfig)


def to_config(tree: DictConfig | Mapping[str, Any], schema: type[AnyConfig] = Config) -> AnyConfig:
    """Validate a composed tree and return it as dataclasses.

    Args:
        tree: the whole tree, from Hydra or as plain dicts.
        schema: `Config`, or a subclass of it for an entry point with sections of its own.

    Raises:
        ConfigError: one sentence that names the key, and the nearest right one or the accepted values.
    """
    if isinstance(tree, DictConfig):
        missing = missing_keys(OmegaConf.to_container(tree, resolve=False))
        if missing:
            example = " ".join(f"{key}=..." for key in missing)
            raise ConfigError(f"No value yet for {', '.join(missing)}: add {example} to the command.")
        tree = OmegaConf.to_container(tree, resolve=True)
    refuse_code(tree)
    return from_tree(schema, tree)
