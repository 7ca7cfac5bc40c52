"""Every yaml of conf/ composes and validates the way a command does it, and says what it is for."""

from __future__ import annotations

import dataclasses
import re
import typing
from pathlib import Path

import pytest
import yaml

from cut_dist.benchmark.config import BenchmarkJobConfig
from cut_dist.config import Config, ConfigError, ObjectiveConfig, PreviewJobConfig, run_dir
from cut_dist.config_compose import compose_config, conf_dir
from cut_dist.online.config import OnlineConfig
from cut_dist.study.config import StudyConfig

ROOT = Path(__file__).resolve().parent.parent
CONF = ROOT / "conf"
ROOT_YAMLS = sorted(CONF.glob("*.yaml"))
MEMBERS = sorted(path.relative_to(CONF).with_suffix("") for path in CONF.glob("*/*.yaml"))
GROUP_MEMBERS = [(str(path.parent), path.name) for path in MEMBERS if path.parent.name != "experiment"]
ONLINE_EXPERIMENTS = ["online_llama2_13b", "online_smoke", "online_smollm2"]  # of launch/online.py and its stages alone
STUDY_EXPERIMENTS = ["study_smoke"]  # of launch/study.py alone
ELSEWHERE = {*ONLINE_EXPERIMENTS, *STUDY_EXPERIMENTS}
EXPERIMENTS = [path.name for path in MEMBERS if path.parent.name == "experiment" and path.name not in ELSEWHERE]
SCHEMAS = {
    "train": Config, "preview": PreviewJobConfig, "benchmark": BenchmarkJobConfig, "online": OnlineConfig,
    "study": StudyConfig,
}  # fmt: skip
ONLINE_GROUPS = {"instructions", "generator", "judge"}

# What a member leaves to the command line.
PATH_NEEDED = {"data.path": "data.path=mine.jsonl"}
NVME = "deepspeed.zero_optimization.offload_optimizer.nvme_path"
NVME_NEEDED = {NVME: f"{NVME}=/x"}
REQUIRED = {
    ("data", "jsonl"): PATH_NEEDED,
    ("data", "columns"): PATH_NEEDED,
    ("data", "cut_online"): PATH_NEEDED,
    ("data", "ultrafeedback"): PATH_NEEDED,
    ("deepspeed", "zero3_nvme"): NVME_NEEDED,
    ("experiment", "llama2_13b_1node"): PATH_NEEDED,
    ("experiment", "llama2_13b_4nodes"): PATH_NEEDED,
    ("experiment", "judge_llama2_13b"): PATH_NEEDED,
}
# What a member asks for whose default is null, which only that member refuses.
GIVEN = {
    ("model", "lab"): ["model.tokenizer=bytes"],
    ("instructions", "file"): ["instructions.path=mine.jsonl"],
    ("generator", "endpoint"): ["generator.endpoint.base_url=http://x", "generator.endpoint.model=m"],
    ("judge", "endpoint"): ["judge.endpoint.base_url=http://x", "judge.endpoint.model=m"],
    ("judge", "local"): ["judge.model=some/model"],
}


def required(group: str, member: str) -> list[str]:
    return [*REQUIRED.get((group, member), {}).values(), *GIVEN.get((group, member), [])]


def entry_of(group: str) -> str:
    """Which root yaml chooses among the members of a group."""
    return "online" if group in ONLINE_GROUPS else "train"


def experiment(name: str, *overrides: str, entry: str = "train") -> Config:
    return compose_config(entry, [f"+experiment={name}", *required("experiment", name), *overrides], SCHEMAS[entry])


def test_the_tree_is_where_the_code_looks_for_it_and_holds_nothing_else():
    assert conf_dir() == CONF
    assert [path.stem for path in ROOT_YAMLS] == ["benchmark", "online", "preview", "study", "train"]
    groups = {"model", "data", "objective", "deepspeed", "tracker", *ONLINE_GROUPS}
    assert {group for group, _ in GROUP_MEMBERS} == groups
    walked = len(ROOT_YAMLS) + len(GROUP_MEMBERS) + len(EXPERIMENTS) + len(ELSEWHERE)
    assert walked == len([path for path in CONF.rglob("*") if path.is_file()])


@pytest.mark.parametrize("entry", SCHEMAS)
def test_each_entry_point_composes_without_any_override(entry: str):
    cfg = compose_config(entry, [], SCHEMAS[entry])
    assert cfg.run.experiment == "train" and cfg.run.name == "default"


@pytest.mark.parametrize(("group", "member"), GROUP_MEMBERS)
def test_each_group_member_composes(group: str, member: str):
    entry = entry_of(group)
    cfg = compose_config(entry, [f"{group}={member}", *required(group, member)], SCHEMAS[entry])
    assert run_dir(cfg).parts[:2] == ("runs", "train")


@pytest.mark.parametrize("entry", [entry for entry in SCHEMAS if entry != "study"])
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_each_experiment_composes_under_its_own_name(name: str, entry: str):
    cfg = experiment(name, entry=entry)
    assert cfg.run.experiment == name
    named_by = required("experiment", name)
    assert re.fullmatch(r"[\w.-]+_[0-9a-f]{6}" if named_by else "default", cfg.run.name)


@pytest.mark.parametrize("name", ONLINE_EXPERIMENTS)
def test_each_experiment_of_the_rounds_composes_under_its_own_name(name: str):
    cfg = experiment(name, entry="online")
    assert (cfg.run.experiment, cfg.run.name, cfg.data.path) == (name, "default", "triplets.jsonl")
    assert cfg.data.on_bad_row == "skip"
    with pytest.raises(ConfigError, match=f"'{name}' is one of rounds: python launch/online.py"):
        compose_config("train", [f"+experiment={name}"])


@pytest.mark.parametrize("name", STUDY_EXPERIMENTS)
def test_each_experiment_of_the_study_composes_under_its_own_name(name: str):
    assert experiment(name, entry="study").run.experiment == name
    with pytest.raises(ConfigError, match=f"'{name}' is a study: python launch/study.py"):
        compose_config("train", [f"+experiment={name}"])


@pytest.mark.parametrize(("group", "member"), REQUIRED)
def test_what_a_member_leaves_open_is_asked_for_by_name(group: str, member: str):
    plus = "+" if group == "experiment" else ""
    for key in REQUIRED[group, member]:
        with pytest.raises(ConfigError, match=re.escape(f"No value yet for {key}: add {key}=...")):
            compose_config("train", [f"{plus}{group}={member}"])


@pytest.mark.parametrize(("group", "member"), GIVEN)
def test_what_a_member_of_the_online_groups_needs_is_asked_for_by_name(group: str, member: str):
    for given in GIVEN[group, member]:
        others = [text for text in GIVEN[group, member] if text != given]
        with pytest.raises(ConfigError, match=re.escape(f"{given.partition('=')[0]}=null: ")):
            compose_config("online", [f"{group}={member}", *others], OnlineConfig)


def test_the_experiments_that_the_project_promises_are_there():
    rounds = {f"online_round{number}" for number in range(1, 6)}
    offline = {"offline_shepherd", "offline_summarization"}
    sweeps = {"sweep_smoke", "sweep_paper"}
    others = {"quickstart", "smoke", "llama2_13b_1node", "llama2_13b_4nodes", "judge_llama2_13b"}
    assert set(EXPERIMENTS) == rounds | offline | sweeps | others


# --- what the experiments mean ---


def test_round_1_is_the_papers():
    cfg = experiment("online_round1")
    assert cfg.model.name_or_path == "meta-llama/Llama-2-13b-chat-hf"
    assert (cfg.data.path, cfg.data.format, cfg.data.template) == ("data/cut_online/iter1.json", "alpaca", "alpaca")
    assert (cfg.data.align_p_ratio, cfg.data.max_length) == (0.25, 2048)
    assert (cfg.objective.lam, cfg.objective.alpha) == (1.1, 1.0)
    assert (cfg.train.epochs, cfg.train.global_batch_size) == (1, 8)
    assert (cfg.train.schedule, cfg.train.warmup_steps) == ("cosine", 100)
    assert cfg.deepspeed["zero_optimization"]["stage"] == 3


@pytest.mark.parametrize("number", [2, 3, 4, 5])
def test_a_later_round_starts_from_the_run_before_and_its_own_triplets(number: int):
    before = experiment(f"online_round{number - 1}")
    cfg = experiment(f"online_round{number}")
    assert Path(cfg.model.name_or_path) == run_dir(before) / "model"
    assert cfg.data.path == f"data/cut_online/iter{number}.json"
    assert (cfg.objective, cfg.train) == (before.objective, before.train)


def test_a_later_round_follows_the_root_of_the_runs():
    assert experiment("online_round2", "run.root=/big").model.name_or_path == "/big/online_round1/default/model"


@pytest.mark.parametrize("swap", [False, True])
def test_a_model_and_data_chosen_on_the_command_line_win_over_the_experiments(swap: bool):
    overrides = ["+experiment=online_round2", "model=smollm2_135m", "data.path=../shared/data/cut_online/iter2.json"]
    cfg = compose_config("train", overrides[::-1] if swap else overrides)
    assert cfg.model.name_or_path == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert (cfg.data.path, cfg.data.format) == ("../shared/data/cut_online/iter2.json", "alpaca")
    assert cfg.run.experiment == "online_round2"
    assert re.fullmatch(r"path-iter2_model-smollm2-135m_[0-9a-f]{6}", cfg.run.name)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a_member_chosen_by_hand_means_the_same_under_every_experiment(name: str):
    choice = ["data=quickstart", "model=tiny_random", "deepspeed=zero2"]
    alone = dataclasses.asdict(compose_config("train", choice))
    under = dataclasses.asdict(compose_config("train", [f"+experiment={name}", *choice]))
    for group in ("data", "model", "deepspeed"):
        assert under[group] == alone[group]


def test_smoke_is_ten_steps_of_a_tiny_model_with_nothing_sent():
    cfg = experiment("smoke")
    assert (cfg.train.max_steps, cfg.model.tokenizer, cfg.tracker.name) == (10, "bytes", "none")
    assert cfg.model.random_init["num_hidden_layers"] == 2


def test_the_tiny_model_has_room_for_the_byte_tokenizer():
    from cut_dist.model.tiny import byte_tokenizer

    cfg = experiment("smoke")
    assert len(byte_tokenizer()) <= cfg.model.random_init["vocab_size"]
    assert cfg.data.max_length <= cfg.model.random_init["max_position_embeddings"]


def test_shipped_triplets_are_found():
    for name in ("quickstart", "smoke"):
        cfg = experiment(name)
        assert Path(cfg.data.path).is_file() and Path(cfg.data.heldout_path).is_file()


def test_the_released_codes_loss_is_two_contexts_and_one_weight():
    cfg = compose_config("train", ["objective=cut_released"])
    assert (cfg.objective.contrast, cfg.objective.gamma, cfg.objective.reduction) == ("instruction", 0.0, "token_mean")


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_each_zero_stage_has_its_yaml(stage: int):
    cfg = compose_config("train", [f"deepspeed=zero{stage}"])
    assert cfg.deepspeed["zero_optimization"]["stage"] == stage


@pytest.mark.parametrize("member", [member for group, member in GROUP_MEMBERS if group == "deepspeed"])
def test_deepspeed_takes_its_yaml(member: str):
    from deepspeed.runtime.zero import config as zero_config  # seconds to import, and only used here

    cfg = compose_config("train", [f"deepspeed={member}", *required("deepspeed", member)])
    section = cfg.deepspeed["zero_optimization"]
    read = zero_config.DeepSpeedZeroConfig(**section)
    assert int(read.stage) == section["stage"]
    if section["stage"] == 3:
        assert read.gather_16bit_weights_on_model_save, "a saved model would be empty"


def test_every_rank_composes_the_same(monkeypatch):
    runs = []
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setenv("LOCAL_RANK", rank)
        runs.append(experiment("online_round2", "objective.lam=1.2"))
    assert runs[0] == runs[1] and runs[0].run.name == runs[1].run.name


# --- how the files are written ---


def test_train_yaml_holds_every_key_with_the_dataclasses_default():
    tree = yaml.safe_load((CONF / "train.yaml").read_text(encoding="utf-8"))
    hints = typing.get_type_hints(Config)
    assert set(tree) - {"defaults"} == set(hints) - {"deepspeed"}
    for section, kind in hints.items():
        if not dataclasses.is_dataclass(kind):
            continue
        fields = dataclasses.fields(kind)
        assert list(tree[section]) == [field.name for field in fields], section
        for field in fields:
            default = field.default
            if field.default_factory is not dataclasses.MISSING:
                default = field.default_factory()
            written = tree[section][field.name]
            assert written == ("???" if default is dataclasses.MISSING else default), f"{section}.{field.name}"


def test_no_member_of_objective_says_again_what_train_yaml_says():
    default = ObjectiveConfig()
    for path in (CONF / "objective").glob("*.yaml"):
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
        said = {key for key, value in tree.items() if key != "name" and value == getattr(default, key)}
        assert said <= {"fake_judgment", "beta"}, path  # which mean something of their own there


def test_preview_yaml_holds_its_own_keys_with_the_dataclasses_default():
    tree = yaml.safe_load((CONF / "preview.yaml").read_text(encoding="utf-8"))
    default = typing.get_type_hints(PreviewJobConfig)["preview"]()
    assert tree["preview"] == dataclasses.asdict(default)


@pytest.mark.parametrize("path", ROOT_YAMLS, ids=lambda path: path.stem)
def test_every_key_of_a_root_yaml_has_its_sentence(path: Path):
    lines = path.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines):
        if re.match(r"\s+- ", line):
            assert "# " in line, f"{path.name}:{number + 1}: no comment beside {line.strip()}"
        elif re.match(r"\s*\w+: *\S", line):
            assert lines[number - 1].lstrip().startswith("# "), f"{path.name}:{number + 1}: no comment above {line}"


@pytest.mark.parametrize("path", sorted(CONF.rglob("*.yaml")), ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_yaml_begins_with_what_it_is_for(path: Path):
    lines = path.read_text(encoding="utf-8").splitlines()
    if path.parent.name == "experiment":
        assert lines.pop(0) == "# @package _global_"
    assert re.match(r"# \w+", lines[0])
    assert all(len(line) <= 120 for line in lines)


@pytest.mark.parametrize("path", sorted(CONF.rglob("*.yaml")), ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_no_yaml_names_code_or_the_clock(path: Path):
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"_(target|partial|recursive|convert|args)_", text)
    assert "now:" not in text and "hydra" not in yaml.safe_load(text)


def test_no_module_instantiates_from_the_configuration():
    sources = [path for folder in ("cut_dist", "launch", "kernels") for path in (ROOT / folder).rglob("*.py")]
    assert len(sources) > 5
    for path in sources:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"hydra\.utils|\binstantiate\(|\bget_(class|method|object)\(", text), path
        assert not re.search(r"getattr\([^)]*\b(cfg|config)\.", text), path
