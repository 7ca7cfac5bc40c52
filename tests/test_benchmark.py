"""launch/benchmark.py: every suite runs small on the CPU, what is wrong is not timed, numbers mean what they say."""

from __future__ import annotations

import dataclasses
import json
import platform
import subprocess
import sys
import typing
from pathlib import Path

import pytest
import torch
import yaml
from rich.console import Console

from cut_dist.benchmark import head_suite, kernel_suite, peers, report, rows, summary, timing
from cut_dist.benchmark.config import BenchmarkJobConfig
from cut_dist.benchmark.job import benchmark
from cut_dist.benchmark.memory import peak_bytes
from cut_dist.config import Config, ConfigError, ObjectiveConfig
from cut_dist.config_compose import compose_config, conf_dir
from cut_dist.figure import processor

CPU = torch.device("cpu")
SMALL = {
    "kernel": ["kernel.rows=6", "kernel.vocab=[50]"],
    "head": ["head.rows=6", "head.vocab=[50]", "head.hidden=[16]"],
    "step": ["model=tiny_random", "step.triplets=null", "step.examples=3"],
}


def configuration(*overrides: str) -> BenchmarkJobConfig:
    return compose_config("benchmark", overrides, BenchmarkJobConfig)


def test_a_case_that_fails_leaves_what_others_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def no_case():
        raise RuntimeError("no such kernel")

    good = list(kernel_suite.cases(configuration("kernel.rows=4", "kernel.vocab=[20]"), CPU, torch.float32))
    monkeypatch.setattr(kernel_suite, "cases", lambda *_: [("bad", no_case), *good, ("bad", no_case)])
    target = tmp_path / "bench"
    cfg = configuration("suite=kernel", "device=cpu", "repetitions=1", f"output={target}")
    assert benchmark(cfg, Console(quiet=True)) == 1
    report = json.loads(target.with_suffix(".json").read_text())
    assert len(report["cases"]) == 1
    assert [case["status"] for case in report["not_made"]] == ["RuntimeError: no such kernel"] * 2


@pytest.mark.parametrize("suite", SMALL)
def test_a_suite_runs_and_writes_what_it_found(suite: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    if suite == "head":  # compiling takes ten seconds; suite=kernel does it
        monkeypatch.setattr(torch, "compile", lambda function: function)
    target = tmp_path / "out" / "bench"
    cfg = configuration(f"suite={suite}", "device=cpu", "repetitions=2", f"output={target}", *SMALL[suite])
    console = Console(record=True, width=140)
    assert benchmark(cfg, console) == 0
    text = target.with_name("bench.json").read_text()
    assert target.with_name("bench.png").read_bytes().startswith(b"\x89PNG")
    for private in (str(tmp_path), str(Path.home()), platform.node()):
        assert private not in text
    report = json.loads(text)
    assert {"processor", "cores", "threads", "code", "packages"} <= report["machine"].keys()
    assert {"git_commit", "git_dirty"} <= report["machine"]["code"].keys()
    assert report["settings"]["suite"] == suite and report["not_made"] == []
    [case] = report["cases"]
    assert case["suite"] == suite and case["repetitions"] == 2
    timed = [row for row in case["contenders"] if row["status"] == "ok"]
    assert len(timed) >= 3
    for row in timed:
        assert row["error"] <= case["tolerance"] and len(row["seconds"]) == 2
        assert 0 < row["p20_s"] <= row["median_s"] <= row["p80_s"] and row["peak_bytes"] > 0
        assert row["share_of_rate"] > 0 and row["name"] in console.export_text(clear=False)
        assert (suite == "step") == ("useful_tokens_per_s" in row)
    assert {row["status"].partition(" module ")[0] for row in case["contenders"]} <= {"ok", "no", "needs CUDA"}


@pytest.mark.gpu
def test_all_suites_on_a_gpu(tmp_path: Path):
    sizes = [override for suite in ("kernel", "head") for override in SMALL[suite]]
    llama = {"vocab_size": 512, "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2}
    sizes += ["step.triplets=null", "step.examples=3"]
    sizes += [f"step.cuda_model.{key}={value}" for key, value in llama.items()]
    cfg = configuration("device=cuda", "repetitions=2", f"output={tmp_path / 'gpu'}", *sizes)
    assert benchmark(cfg, Console(record=True)) == 0
    report = json.loads((tmp_path / "gpu.json").read_text())
    assert [case["suite"] for case in report["cases"]] == ["kernel", "head", "step"] and report["machine"]["gpu"]


# --- the race ---


def case(*contenders: timing.Contender, expected: float = 2.0) -> timing.Case:
    floor = timing.Floor("copy", "B/s", lambda: None, 1.0)
    values = {timing.WHOLE: [torch.tensor([expected])]}
    return timing.Case("kernel", "a case", {}, floor, contenders, values, tolerance=0.01, details={"floor": "none"})


def contender(name: str, value: float | Exception, ran: list[str]) -> timing.Contender:
    def run(repetition: int):
        ran.append(name)
        if isinstance(value, Exception):
            raise value
        return [torch.tensor([value])]

    return timing.Contender(name, run, work=lambda i: 5.0)


def test_only_what_gives_the_expected_is_timed_and_the_others_do_not_stop_it():
    ran: list[str] = []
    given = {
        "right": 2.01, "wrong": 2.1, "nan": float("nan"), "full": torch.OutOfMemoryError("no memory"),
        "broken": TypeError("an odd\nargument"),
    }  # fmt: skip
    contenders = [contender(name, value, ran) for name, value in given.items()]
    results, floor = timing.race(
        case(*contenders, timing.Contender("absent", missing="not installed")), CPU, repetitions=3, seconds=60
    )
    found = {result.contender.name: (result.status, len(result.seconds)) for result in results}
    assert found == {
        "right": ("ok", 3), "wrong": ("wrong", 0), "nan": ("wrong, not finite", 0), "full": ("out of memory", 0),
        "broken": ("failed: TypeError: an odd", 0), "absent": ("not installed", 0),
    }  # fmt: skip
    assert results[1].error == pytest.approx(0.05) and len(floor) == 3
    assert ran.count("right") == 5 and ran.count("wrong") == 1


def test_a_spent_budget_leaves_one_repetition():
    results, floor = timing.race(case(contender("a", 2.0, [])), CPU, repetitions=9, seconds=0)
    assert len(floor) == len(results[0].seconds) == 1


def test_whoever_fails_later_has_no_times_left():
    def run(repetition: int):
        if repetition == 1:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return [torch.tensor([2.0])]

    results, _ = timing.race(case(timing.Contender("late", run)), CPU, repetitions=3, seconds=60)
    assert (results[0].status, results[0].seconds) == ("out of memory", [])


def test_what_is_prepared_is_not_timed_and_precedes_each_run():
    seen: list[tuple[str, int]] = []

    def run(repetition: int):
        seen.append(("run", repetition))
        return [torch.tensor([2.0])]

    timing.race(
        case(timing.Contender("a", run, prepare=lambda i: seen.append(("prepare", i)))), CPU, repetitions=2, seconds=60
    )
    assert seen == [(what, i) for i in (0, 0, 0, 1) for what in ("prepare", "run")]


def test_the_numbers_of_a_case_by_hand():
    def result(name: str, seconds: list[float]) -> timing.Result:
        made = timing.Contender(name, work=lambda i: 6.0, tokens=lambda i: [10, 30][i])
        return timing.Result(made, error=0.0, peak_bytes=1, seconds=seconds)

    found = summary.summarise(case(), [result("other", [4.0, 12.0]), result("cut_dist", [2.0, 4.0])], [0.5, 0.5], CPU)
    other, ours = found["contenders"]
    assert found["measured_rate"]["value"] == 2.0  # 1 byte in half a second
    assert other["median_s"] == 8 and other["times_ours"] == 2.5  # of 2 and 3
    assert other["share_of_rate"] == pytest.approx((6 / 4 + 6 / 12) / 2 / 2)
    assert other["useful_tokens_per_s"] == 2.5 and ours["useful_tokens_per_s"] == pytest.approx(40 / 6)


def test_numbers_are_written_without_matplotlib_too(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(report, "find_spec", lambda name: None)
    cases = [{"contenders": [{"median_s": 1.0}]}]
    report.write({"machine": {}, "cases": cases}, tmp_path / "made")
    assert json.loads((tmp_path / "made.json").read_text())["cases"] == cases
    assert not (tmp_path / "made.png").exists() and "no figure without matplotlib" in caplog.text


def test_the_peak_counts_what_is_held_at_once():
    def run():
        for _ in range(3):
            torch.ones(1000).add_(1)  # freed at once
        held = torch.ones(5000)
        return held + 1

    assert peak_bytes(run, CPU) == pytest.approx(4 * 10_000, abs=1000)


# --- the inputs and the peers ---


def test_half_of_the_tokens_are_inappropriate_and_none_is_near_the_threshold():
    data = rows.logit_rows(8, 300, torch.float32, CPU, ObjectiveConfig(), seed=0)
    logp = [x.detach().log_softmax(1).gather(1, data.labels[:, None])[:, 0] for x in (data.authentic, data.fake)]
    difference = logp[0] - logp[1]
    assert (difference > 0).tolist() == [False, True] * 4
    assert difference.abs().min() > 1


def test_a_missing_term_is_an_error_that_no_tolerance_lets_pass():
    data = rows.hidden_rows(16, 300, 32, torch.float32, CPU, ObjectiveConfig(), seed=0)
    whole, likelihood = rows.expected(data), rows.expected(data, lam=head_suite.NO_TOKEN)
    assert timing.largest_error(likelihood, whole) > 5 * max(head_suite.TOLERANCES.values())
    assert [tuple(x.shape) for x in whole] == [(), (16, 32), (16, 32), (300, 32)]


def test_the_least_work_of_the_head():
    # 2·R·V·D a product: three contexts' logits, then dX and dW of the two with a gradient
    assert head_suite.FLOPS == {timing.WHOLE: 14, timing.LIKELIHOOD: 12}


def test_the_objective_around_any_log_probabilities():
    data = rows.hidden_rows(16, 300, 32, torch.float32, CPU, ObjectiveConfig(gamma=0.5), seed=0)

    def logp(hidden, labels):
        return (hidden @ data.weight.T).log_softmax(1).gather(1, labels[:, None])[:, 0]

    assert timing.largest_error(peers.whole_from_logp(data, logp), rows.expected(data)) < 1e-5


def test_trl_gives_the_objective():
    pytest.importorskip("trl", reason="TRL is an optional peer: pip install 'cut-dist[bench]'")
    data = rows.hidden_rows(16, 300, 32, torch.float32, CPU, ObjectiveConfig(), seed=0)
    assert timing.largest_error(peers.trl_chunked(data)(0), rows.expected(data)) < 1e-5


def test_a_library_that_is_not_there_is_listed_as_such():
    def build():
        import no_such_library

        return no_such_library.cross_entropy

    def build_of_another_version():
        from torch.nn import no_such_loss

        return no_such_loss

    assert peers.peer("x", build).missing == "no module no_such_library"
    assert "ImportError: cannot import name 'no_such_loss'" in peers.peer("x", build_of_another_version).missing
    assert peers.triton_peer("x", build, CPU).missing == "needs CUDA"


# --- the configuration ---


def test_the_yaml_holds_every_key_with_the_dataclasses_default():
    tree = yaml.safe_load((conf_dir() / "benchmark.yaml").read_text(encoding="utf-8"))
    assert tree["step"].pop("cuda_model")["num_hidden_layers"] == 8
    for name, kind in typing.get_type_hints(BenchmarkJobConfig).items():
        if name in typing.get_type_hints(Config):
            continue
        default = kind() if dataclasses.is_dataclass(kind) else getattr(BenchmarkJobConfig, name)
        default = dataclasses.asdict(default) if dataclasses.is_dataclass(default) else default
        if name == "step":
            default.pop("cuda_model")
        assert tree[name] == default, name


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("kernel.row=3", "did you mean 'kernel.rows'"),
        ("suite=heads", "did you mean 'head'"),
        ("head.vocab=[1]", "head.vocab=1: must be at least 2"),
        ("budget_minutes=0", "budget_minutes=0.0: must be more than 0"),
        ("+step.cuda_model.depth=3", "There is no key 'step.cuda_model.depth'"),
    ],
)
def test_a_mistake_names_the_key(override: str, message: str):
    with pytest.raises(ConfigError) as error:
        configuration(override)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("objective=sft", "objective.name='sft': the benchmark measures CUT with name=cut only"),
        ("objective.without=l1", "objective.without='l1': .* without=None only"),
        ("objective.lam_instruction=1.2", "objective.lam_instruction=1.2: .* lam_instruction=None only"),
    ],
)
def test_an_objective_that_is_not_measured_is_refused(override: str, message: str):
    with pytest.raises(ConfigError, match=message):
        benchmark(configuration(override))


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_gpu_that_is_not_there_is_refused():
    with pytest.raises(ConfigError, match="device=cuda: torch sees no GPU"):
        benchmark(configuration("device=cuda"))


def test_the_processor_has_a_name():
    assert processor()


def test_a_peer_that_breaks_on_import_costs_no_case():
    def build():
        raise RuntimeError("made for another version")

    assert peers.peer("other", build).missing == "can't be imported: RuntimeError: made for another version"


def test_the_benchmark_needs_no_deepspeed():
    """It measures kernels and steps on machines that have torch and transformers alone."""
    absent = "import sys; sys.modules.update(dict.fromkeys(('deepspeed', 'wandb', 'datasets')))"
    modules = "cut_dist.benchmark.config, cut_dist.benchmark.job, cut_dist.cli"
    subprocess.run([sys.executable, "-c", f"{absent}; import {modules}"], check=True)
