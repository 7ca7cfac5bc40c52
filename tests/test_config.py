"""The dataclasses, their checks, and what makes a run the same run."""

from __future__ import annotations

import copy
import dataclasses
import typing

import pytest

from cut_dist.config import (
    RANDOM_INIT_KEYS,
    TRIPLET_COLUMNS,
    Config,
    ConfigError,
    DataConfig,
    ModelConfig,
    PreviewJobConfig,
    TrainConfig,
    asset_path,
    auto_name,
    config_hash,
    identity,
    run_dir,
    to_config,
)
from cut_dist.config_check import shown
from cut_dist.config_deepspeed import COMPUTED_BY_US
from cut_dist.online.config import OnlineConfig
from cut_dist.run_identity import NEUTRAL
from cut_dist.wording import counted, nearest

HOSTILE_NAMES = [
    "", ".", "..", "...", ".hidden", "../up", "../../etc", "a/../b", "a/b", "/abs", "/", "//", "a\\b", "..\\up", "~",
    "~root", "-rf", "--help", "a\0b", "a\nb", "name\n", "\t", " ", "a b", "trailing.", "x" * 65, "x" * 300, "naïve",
    "a:b", "a*", "$HOME", "`id`", "a;b", "%2e%2e", "\u202eevil", "ａｂ",
]  # fmt: skip


def tree(**changes: object) -> dict:
    """A valid tree, with the dotted keys of `changes` ('.' written as '__') set."""
    result = dataclasses.asdict(
        Config(model=ModelConfig(name_or_path="some/model"), data=DataConfig(path="t.jsonl", heldout_size=2))
    )
    for key, value in changes.items():
        *sections, last = key.split("__")
        place = result
        for section in sections:
            place = place.setdefault(section, {})
        place[last] = value
    return result


def refused(*, match: str, **changes: object) -> str:
    with pytest.raises(ConfigError, match=match) as caught:
        to_config(tree(**changes))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def leaves(kind: type, place: str = "") -> list[str]:
    """Every dotted key of a schema."""
    found = []
    for name, hint in typing.get_type_hints(kind).items():
        if dataclasses.is_dataclass(hint):
            found += leaves(hint, f"{place}{name}.")
        else:
            found.append(f"{place}{name}")
    return found


def test_a_valid_tree_comes_back_as_it_was():
    cfg = to_config(tree(objective__lam=1.2))
    assert cfg.objective.lam == 1.2
    assert dataclasses.asdict(cfg) == tree(objective__lam=1.2)


def test_keys_left_out_take_their_defaults():
    cfg = to_config({"model": {"name_or_path": "m"}, "data": {"path": "t.jsonl", "heldout_size": 2}})
    assert cfg.train == TrainConfig()


def test_a_whole_number_serves_as_a_float():
    cfg = to_config(tree(objective__alpha=1))
    assert type(cfg.objective.alpha) is float


@pytest.mark.parametrize("key", leaves(PreviewJobConfig))
def test_a_key_with_a_letter_missing_names_the_right_one(key: str):
    section, _, last = key.rpartition(".")
    typo = last[0] + last[2:] if len(last) > 3 else last + "x"
    changed = tree(preview__count=4)
    place = changed[section] if section else changed
    place[typo] = place.pop(last, None)
    with pytest.raises(ConfigError) as caught:
        to_config(changed, PreviewJobConfig)
    full = f"{section}.{typo}" if section else typo
    assert f"no key '{full}'" in str(caught.value)
    assert f"did you mean '{key}'?" in str(caught.value)


def test_a_key_of_nothing_like_it_lists_the_keys():
    keys = "Keys of 'objective': alpha, beta, contrast, fake_judgment"
    assert keys in refused(match="objective.zzz", objective__zzz=1)


def test_lambda_is_a_python_keyword_and_our_key_is_lam():
    refused(match=r"did you mean 'objective\.lam'\?", objective__lambda=1.2)


WRONG_VALUES = {
    "objective.lam": ["abc", "1.1", 0, -1, None, True, [1.1], float("nan"), float("inf")],
    "objective.alpha": [-0.1, "x"],
    "objective.gamma": [-1],
    "objective.lam_instruction": [0, -1.0, "x"],
    "objective.floor": [-0.1, 1.1, None],
    "objective.without": ["L1", "gamma", True],
    "objective.contrast": ["fak", 1, None],
    "objective.name": ["CUT"],
    "objective.fake_judgment": ["", "  ", None, 3],
    "objective.reduction": ["mean"],
    "train.epochs": [0, -1],
    "train.max_steps": [0, 1.5, "10", True],
    "train.global_batch_size": [0, 2.0],
    "train.micro_batch_tokens": [0],
    "train.lr": [0, -1e-5, 2.0, "1e-5"],
    "train.betas": [[0.9], [0.9, 1.0], [0.9, 0.95, 0.99], "0.9", [0.9, "x"], 0.9],
    "train.eps": [0],
    "train.schedule": ["cosin", "reduce_lr_on_plateau"],
    "train.warmup_steps": [-1, None],
    "train.warmup_ratio": [-0.1, 1.1],
    "train.min_lr_ratio": [-0.1, 1.1],
    "train.max_grad_norm": [-1],
    "train.weight_decay": [-1],
    "train.precision": ["fp16", "float32"],
    "train.max_bad_steps": [0],
    "eval.every": [-1],
    "eval.at_start": ["yes", 1],
    "eval.generations": [-1],
    "eval.max_new_tokens": [0],
    "checkpoint.every": [-1],
    "checkpoint.keep_last": [1, 0, -3],
    "tracker.name": ["mlflow"],
    "tracker.mode": ["disabled"],
    "tracker.project": [""],
    "tracker.tags": ["a", [""], ["x" * 65], [1]],
    "tracker.judged_tokens": [-1],
    "tracker.log_data": ["yes"],
    "tracker.log_model": [1],
    "run.root": ["", "a\nb", "a\0b", None],
    "run.resume": [True, "yes"],
    "run.stop_after": [0],
    "run.timeout_minutes": [0, -1.0, 1441],
    "run.export": [None],
    "data.path": ["", None, 3],
    "data.format": ["csv"],
    "data.template": ["vicuna"],
    "data.heldout_size": [-1, None],
    "data.max_length": [8],
    "data.max_judgment_tokens": [0, 2048, 5000],
    "data.align_p_ratio": [-0.25],
    "data.on_bad_row": ["ignore"],
    "data.on_overlong": ["truncate"],
    "data.limit": [0, 2],
    "data.columns": [{"instruction": "a"}, ["a"]],
    "model.attention": ["eager"],
    "model.context_split": [False, "on"],
    "model.checkpointing": [True, "some"],
    "model.name_or_path": ["", None, 7],
    "model.random_init": [{"hidden_size": 8}],
    "seed": [-1, 2**32, 1.0, None],
}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in WRONG_VALUES.items() for value in values])
def test_a_wrong_value_is_refused_by_the_name_of_its_key(key: str, value: object):
    refused(match=key.replace(".", r"\."), **{key.replace(".", "__"): value})


def test_a_choice_names_the_accepted_values_and_the_nearest():
    message = refused(match="objective.contrast", objective__contrast="instructions")
    assert "one of fake, instruction; did you mean 'instruction'?" in message


def test_a_section_is_not_a_value_nor_a_value_a_section():
    refused(match="'train' is a section", train=3)
    refused(match=r"train\.lr", train__lr={"value": 1e-5})


def test_text_that_yaml_read_as_a_number_is_not_turned_back():
    assert "quote it" in refused(match=r"run\.name=100000\.0", run__name=1e5)


# --- keys that go together ---


def test_a_fake_context_needs_a_judgment_and_the_instruction_contrast_none():
    assert to_config(tree(objective__contrast="instruction", objective__fake_judgment="")).objective.fake_judgment == ""


def test_evaluation_needs_held_out_rows():
    message = refused(match=r"data\.heldout_size=0", data__heldout_size=0)
    assert "eval.every=0 eval.at_start=false eval.at_end=false" in message
    assert to_config(tree(data__heldout_size=0, data__heldout_path="h.jsonl")).data.heldout_size == 0
    assert not to_config(tree(data__heldout_size=0, eval__at_start=False, eval__at_end=False)).eval.at_end


def test_keeping_one_checkpoint_is_refused_with_the_reason():
    assert "nothing to go back to" in refused(match="keep_last=1", checkpoint__keep_last=1)


def test_warm_up_is_given_once_and_not_to_a_flat_schedule():
    refused(
        match=r"train\.warmup_ratio=0\.1.*train\.warmup_steps=100", train__warmup_steps=100, train__warmup_ratio=0.1
    )
    refused(match="constant_with_warmup", train__schedule="constant", train__warmup_steps=100)
    assert to_config(tree(train__schedule="constant_with_warmup", train__warmup_steps=100)).train.warmup_steps == 100


def test_columns_belong_to_the_columns_format():
    columns = {"instruction": "q", "response": "a", "judgment": "f"}
    refused(match=r"data\.format=columns", data__columns=columns)
    refused(match=r"did you mean 'data\.columns\.judgment'\?", data__format="columns",
            data__columns={**columns, "judgement": "f"})  # fmt: skip
    refused(match=r"data\.columns", data__format="columns")
    assert to_config(tree(data__format="columns", data__columns=columns)).data.columns == columns


def test_a_random_model_needs_a_tokenizer_and_known_sizes():
    sizes = {"vocab_size": 320, "hidden_size": 64}
    refused(match=r"model\.tokenizer", model__name_or_path=None, model__random_init=sizes)
    refused(match=r"did you mean 'model\.random_init\.hidden_size'\?", model__name_or_path=None,
            model__tokenizer="bytes", model__random_init={"hiden_size": 64})  # fmt: skip
    refused(match=r"hidden_size=-1", model__name_or_path=None, model__tokenizer="bytes",
            model__random_init={"hidden_size": -1})  # fmt: skip
    cfg = to_config(tree(model__name_or_path=None, model__tokenizer="bytes", model__random_init=sizes))
    assert cfg.model.random_init == sizes


def test_a_model_is_a_name_or_random_but_not_both():
    refused(match="leave the other null", model__random_init={"hidden_size": 64}, model__tokenizer="bytes")


def test_the_tables_here_are_those_of_the_parts_they_speak_of():
    from transformers import LlamaConfig

    from cut_dist.data.readers import FORMATS
    from cut_dist.data.templates import TEMPLATES
    from cut_dist.data.triplets import ROLES
    from cut_dist.schedule import SCHEDULES

    data, train = typing.get_type_hints(DataConfig), typing.get_type_hints(TrainConfig)
    assert set(typing.get_args(data["format"])) == {*FORMATS, "auto", "columns"}
    assert set(typing.get_args(data["template"])) == set(TEMPLATES)
    assert set(typing.get_args(train["schedule"])) == set(SCHEDULES)
    assert set(TRIPLET_COLUMNS) == set(ROLES)
    assert set(RANDOM_INIT_KEYS) <= set(LlamaConfig().to_dict())


# --- DeepSpeed's section ---


@pytest.mark.parametrize("key", COMPUTED_BY_US)
def test_keys_that_are_computed_are_refused_with_what_to_set(key: str):
    message = refused(match=f"deepspeed.{key}", deepspeed={"zero_optimization": {"stage": 3}, key: 1})
    assert COMPUTED_BY_US[key] in message


def test_a_misspelt_section_of_deepspeed_is_named_and_an_unknown_one_left_to_it():
    zero = {"zero_optimization": {"stage": 3}}
    refused(match=r"did you mean 'deepspeed\.zero_optimization'", deepspeed={**zero, "zero_optimisation": {}})
    assert "hybrid_engine" in to_config(tree(deepspeed={**zero, "hybrid_engine": {}})).deepspeed


@pytest.mark.parametrize("stage", [None, 4, -1, "3", True])
def test_the_zero_stage_is_0_to_3(stage: object):
    refused(match=r"deepspeed\.zero_optimization\.stage", deepspeed={"zero_optimization": {"stage": stage}})


def test_nvme_offload_needs_a_folder():
    zero = {"stage": 3, "offload_param": {"device": "nvme"}}
    refused(match=r"offload_param\.nvme_path=null", deepspeed={"zero_optimization": zero})
    zero["offload_param"]["nvme_path"] = "/nvme"
    assert to_config(tree(deepspeed={"zero_optimization": zero})).deepspeed["zero_optimization"] == zero


# --- no code, no secrets, no way out of the folder ---


@pytest.mark.parametrize("key", ["_target_", "_partial_", "_recursive_", "_convert_", "_args_"])
@pytest.mark.parametrize("place", ["", "model", "deepspeed", "run"])
def test_a_config_names_no_code(place: str, key: str):
    changed = tree()
    (changed[place] if place else changed)[key] = "os.system"
    with pytest.raises(ConfigError, match=f"{key}' is refused"):
        to_config(changed)


def test_code_is_found_at_any_depth():
    refused(match=r"deepspeed\.a\.b\[1\]\._target_", deepspeed={"a": {"b": [1, {"_target_": "os.system"}]}})


@pytest.mark.parametrize("key", ["api_key", "wandb_api_key", "token", "password", "openai_secret"])
def test_secrets_are_refused_and_not_repeated(key: str):
    assert "hunter2" not in refused(match="environment", **{f"tracker__{key}": "hunter2"})


@pytest.mark.parametrize("name", HOSTILE_NAMES)
@pytest.mark.parametrize("key", ["name", "experiment"])
def test_hostile_names_are_refused(key: str, name: str):
    message = refused(match=f"run.{key}=", **{f"run__{key}": name})
    assert message.isprintable() and len(message) < 300


@pytest.mark.parametrize("name", ["a", "default", "lam-1.2_alpha-0.5_3f9ac1", "_x", "x" * 64, "2024-01-01", "a..b"])
def test_usual_names_are_accepted(name: str, tmp_path):
    cfg = to_config(tree(run__name=name, run__root=str(tmp_path)))
    assert run_dir(cfg) == tmp_path / "train" / name


def test_a_link_out_of_the_root_is_refused_and_a_root_that_is_a_link_is_not(tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "runs" / "train").mkdir(parents=True)
    (tmp_path / "runs" / "train" / "default").symlink_to(tmp_path / "outside")
    with pytest.raises(ConfigError, match="leads out of run.root"):
        run_dir(to_config(tree(run__name="default", run__root=str(tmp_path / "runs"))))
    (tmp_path / "linked").symlink_to(tmp_path / "outside")
    run_dir(to_config(tree(run__name="default", run__root=str(tmp_path / "linked"))))
    assert list((tmp_path / "outside").iterdir()) == []


def test_a_folder_needs_the_name_resolved():
    with pytest.raises(ConfigError, match="run.name=auto"):
        run_dir(to_config(tree()))


def test_assets_stay_inside_the_package():
    assert asset_path("quickstart/train.jsonl").endswith("cut_dist/assets/quickstart/train.jsonl")
    with pytest.raises(ConfigError, match="inside"):
        asset_path("../../etc/passwd")


# --- identity and names ---

OTHER_VALUES = {
    "run.name": "other", "run.root": "elsewhere", "run.stop_after": 3, "run.experiment": "other",
    "run.timeout_minutes": 5,
    "tracker.name": "none", "tracker.tags": ["a"], "eval.every": 5, "eval.generations": 0, "checkpoint.every": 7,
    "checkpoint.keep_last": 5,
    "data.cache_dir": "cache", "model.attention": "sdpa", "model.checkpointing": "none", "train.micro_batch_tokens": 99,
    "model.context_split": "off",
}  # fmt: skip
RESULT_CHANGING = {
    "seed": 1, "objective.lam": 1.2, "objective.gamma": 0.0, "objective.contrast": "instruction", "train.lr": 2e-5,
    "train.epochs": 2.0, "train.max_steps": 5, "train.global_batch_size": 16, "data.path": "u.jsonl", "data.limit": 50,
    "data.template": "chat", "data.align_p_ratio": 0.25, "data.heldout_size": 3, "model.name_or_path": "other/model",
    "model.revision": "abc", "train.precision": "bf16", "deepspeed.zero_optimization.stage": 2,
}  # fmt: skip


@pytest.mark.parametrize("key", OTHER_VALUES)
def test_where_and_how_often_do_not_change_the_run(key: str):
    other = to_config(tree(**{key.replace(".", "__"): OTHER_VALUES[key]}))
    assert config_hash(other) == config_hash(to_config(tree()))
    assert auto_name(other, [f"{key}={OTHER_VALUES[key]}"]) == "default"


@pytest.mark.parametrize("key", RESULT_CHANGING)
def test_what_changes_the_result_changes_the_run_and_shows_in_its_name(key: str):
    other = to_config(tree(**{key.replace(".", "__"): RESULT_CHANGING[key]}))
    assert config_hash(other) != config_hash(to_config(tree()))
    name = auto_name(other, [f"{key}={RESULT_CHANGING[key]}"])
    assert name.endswith("_" + config_hash(other)[:6])


def test_neutral_keys_exist():
    known = {*leaves(PreviewJobConfig), *leaves(OnlineConfig)}
    for key in NEUTRAL:
        assert any(leaf == key or leaf.startswith(f"{key}.") for leaf in known), key


def test_identity_is_plain_and_does_not_depend_on_where_the_package_lies(monkeypatch, tmp_path):
    here = to_config(tree(data__path=asset_path("quickstart/train.jsonl")))
    before = identity(here)
    assert before["data"]["path"] == "pkg://quickstart/train.jsonl"
    assert not {"run", "tracker", "eval", "checkpoint"} & set(before)
    monkeypatch.setattr("cut_dist.run_identity.ASSETS", tmp_path)
    there = to_config(tree(data__path=str(tmp_path / "quickstart" / "train.jsonl")))
    assert identity(there) == before


def test_the_preview_is_no_part_of_the_identity():
    base = tree()
    job = to_config({**copy.deepcopy(base), "preview": {"count": 9}}, PreviewJobConfig)
    assert identity(job) == identity(to_config(base))


def test_names_are_readable_short_and_do_not_depend_on_the_order_typed():
    cfg = to_config(tree(objective__lam=1.2, objective__alpha=0.5))
    digits = config_hash(cfg)[:6]
    overrides = ["+experiment=smoke", "objective.lam=1.2", "tracker=none", "objective.alpha=0.5", "run.resume=never"]
    assert auto_name(cfg, overrides) == auto_name(cfg, overrides[::-1]) == f"alpha-0.5_lam-1.2_{digits}"
    assert auto_name(cfg, ["+experiment=smoke", "tracker=none"]) == "default"
    assert auto_name(cfg, ["data.path=../shared/data/iter2.json"]) == f"path-iter2_{digits}"
    assert auto_name(cfg, ["deepspeed=zero2"]) == f"deepspeed-zero2_{digits}"


def test_a_name_that_would_be_too_long_keeps_model_and_data_and_whole_parts():
    cfg = to_config(tree())
    long = ["deepspeed.zero_optimization.stage3_max_live_parameters=1000000000"]
    overrides = ["model=smollm2_135m", "data.path=a/iter2.json", "data.align_p_ratio=0.25", *long, "train.lr=3e-6"]
    digits = config_hash(cfg)[:6]
    assert auto_name(cfg, overrides) == f"align-p-ratio-0.25_path-iter2_model-smollm2-135m_lr-3e-6_{digits}"
    name = auto_name(cfg, ["data.path=" + "d" * 90, "model=" + "m" * 90, "train.lr=3e-6"])
    assert "path-ddd" in name and "model-mmm" in name and len(name) <= 64


@pytest.mark.parametrize("value", ["'" + "x" * 300 + "'", "../..", "'a b, c'", "", "..", "'\u202e'", "~/..", "[1,2]"])
def test_any_override_makes_a_valid_name(value: str):
    cfg = to_config(tree())
    name = auto_name(cfg, [f"data.path={value}", "+deepspeed.aio.x=1", f"model.name_or_path={value}"])
    assert to_config(tree(run__name=name)).run.name == name


# --- helpers ---


def test_nearest_finds_by_likeness_and_not_at_any_price():
    assert nearest("gama", ["alpha", "gamma"]) == "gamma"
    assert nearest("GAMMA", ["alpha", "gamma"]) == "gamma"
    assert nearest("xyz", ["alpha", "gamma"]) is None


def test_a_number_and_its_noun_agree():
    assert [counted(n, "row") for n in (0, 1, 2, 1200)] == ["0 rows", "1 row", "2 rows", "1,200 rows"]


def test_values_are_shown_as_yaml_writes_them():
    assert [shown(value) for value in (None, True, 1.5, "a\nb")] == ["null", "true", "1.5", r"'a\nb'"]
    assert len(shown("x" * 300)) <= 80
