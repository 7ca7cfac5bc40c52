"""launch/evaluate.py as a whole, on a tiny random model: every suite for real, and nothing done twice."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest
from openai_server import Answer, Server
from rich.console import Console

from cut_dist.config_check import ConfigError
from cut_dist.config_compose import compose_config
from cut_dist.data.triplets import DataError
from cut_dist.evaluation import driver, harness, report
from cut_dist.evaluation.model import answering_record, display_name
from cut_dist.judges.base import WaitingForPeople
from cut_dist.online.config import OnlineConfig
from cut_dist.online.generating import generate_stage
from cut_dist.online.records import Response, read_records, write_records
from cut_dist.online.stage import StageError, read_manifest
from cut_dist.verifiable import write_instructions


@pytest.fixture
def heldout(tmp_path: Path) -> Path:
    path = tmp_path / "heldout.jsonl"
    write_instructions(path, count=4, seed=3, split="heldout")
    return path


def config(tmp_path: Path, *overrides: str) -> OnlineConfig:
    fixed = ["model=tiny_random", f"stage.output={tmp_path}/out", "evaluation.max_new_tokens=8"]
    return compose_config("online", [*fixed, *overrides], OnlineConfig)


def evaluate(cfg: OnlineConfig) -> dict:
    driver.require_inputs(cfg)
    assert driver.evaluate(cfg) == 0
    return json.loads(Path(cfg.stage.output, "evaluation.json").read_text())


def test_answers_are_greedy_and_made_once_and_the_numbers_lie_where_sweeps_look(tmp_path, heldout, capsys):
    cfg = config(tmp_path, f"stage.input={heldout}", "evaluation.limit=3")
    content = evaluate(cfg)
    assert content["model"] == {"random_init": cfg.model.random_init, "seed": 42}
    found = content["suites"]["verifiable"]
    assert content["verifiable"] == {name: found[name] for name in ("strict", "loose", "check_strict", "check_loose")}
    assert found["instructions"] == 3
    answers = read_records(tmp_path / "out/responses.jsonl", Response)
    assert len(answers) == 3 and all(row.sampling["temperature"] == 0 for row in answers)
    assert all(row.response_tokens <= 8 for row in answers)
    assert "strict" in capsys.readouterr().out
    made = read_manifest(tmp_path / "out/responses.jsonl")["finished"]
    assert evaluate(cfg) == content
    assert read_manifest(tmp_path / "out/responses.jsonl")["finished"] == made
    with pytest.raises(StageError, match="responses.jsonl was made with other(?s:.*)max_new_tokens: 8 → 9"):
        evaluate(config(tmp_path, f"stage.input={heldout}", "evaluation.limit=3", "evaluation.max_new_tokens=9"))
    with pytest.raises(StageError, match=r"evaluation\.json is of another model:\n  seed: 42 → 1"):
        evaluate(config(tmp_path, f"stage.input={heldout}", "seed=1"))


def test_answers_that_were_generated_beforehand_are_taken(tmp_path, heldout):
    folder = tmp_path / "out"
    folder.mkdir()
    rows = [json.loads(line) for line in heldout.read_text().splitlines()]
    source = folder / "instructions.jsonl"
    source.write_text("".join(json.dumps(row, indent=None, sort_keys=True) + "\n\n" for row in rows))  # by other hands
    greedy = ["generator.temperature=0", "generator.max_new_tokens=8"]
    assert generate_stage(config(tmp_path, *greedy), source, folder / "responses.jsonl") == 0
    made = read_manifest(folder / "responses.jsonl")["finished"]
    assert evaluate(config(tmp_path, f"stage.input={source}"))["suites"]["verifiable"]["instructions"] == 4
    assert read_manifest(folder / "responses.jsonl")["finished"] == made


def test_each_suite_adds_its_numbers_to_those_that_are_there(tmp_path, heldout, capsys):
    on_input = f"stage.input={heldout}"
    evaluate(config(tmp_path, on_input))
    alpaca = tmp_path / "alpaca.json"
    alpaca.write_text(
        json.dumps([{"dataset": "d", "instruction": "Hi.", "output": "x", "generator": "text_davinci_003"}])
    )
    critiques = tmp_path / "critiques.test.jsonl"
    answer = {"answer": "All is well.", "feedback": {"rating": 7, "critiques": []}}
    asked = {"question": "Sum up.", "answers": [answer], "rankings": [1]}
    critiques.write_text(json.dumps({"id": "r", "data": {"passage": {"text": "All."}, "questions": [asked]}}))
    rival = tmp_path / "rival.jsonl"
    ours = read_records(tmp_path / "out/responses.jsonl", Response)
    write_records(rival, [Response(row.id, row.id, row.instruction, "", "stop", 1, 0) for row in ours])
    content = evaluate(
        config(
            tmp_path, on_input, "evaluation.suites=[alpaca_eval,rouge,win_rate]",
            f"evaluation.alpaca_eval_path={alpaca}", f"evaluation.rouge_path={critiques}", f"evaluation.rival={rival}",
        )
    )  # fmt: skip
    assert list(content["suites"]) == ["verifiable", "alpaca_eval", "rouge", "win_rate"]
    written = json.loads((tmp_path / "out/alpaca_eval/alpaca_eval.json").read_text())
    assert [(row["instruction"], row["generator"]) for row in written] == [("Hi.", "random weights")]
    assert "alpaca_eval --model_outputs" in capsys.readouterr().out
    assert content["suites"]["rouge"]["answers"] == 1 and content["suites"]["rouge"]["reference"] == "refinement"
    # an empty response has one problem; a random one may have none, as many or more
    found = content["suites"]["win_rate"]
    assert found["judge"] == "verifiable" and found["wins"] + found["ties"] + found["losses"] == 4
    assert (tmp_path / "out/win_rate/preferences.jsonl").is_file()


def test_people_compare_in_a_sheet_and_the_same_command_goes_on(tmp_path, heldout):
    rival = tmp_path / "rival.jsonl"
    cfg = config(
        tmp_path, f"stage.input={heldout}", "judge=human", "evaluation.suites=[verifiable,win_rate]",
        f"evaluation.rival={rival}",
    )  # fmt: skip
    rows = [json.loads(line) for line in heldout.read_text().splitlines()]
    write_records(rival, [Response(row["id"], row["id"], row["instruction"], "Theirs.", "stop", 1, 1) for row in rows])
    sheet = tmp_path / "out/win_rate/to_compare.csv"
    with pytest.raises(WaitingForPeople, match="4 rows to judge in"):
        evaluate(cfg)
    assert list(json.loads((tmp_path / "out/evaluation.json").read_text())["suites"]) == ["verifiable"]
    sheet.write_text(sheet.read_text("utf-8-sig").replace('"",""', '"tie",""'), "utf-8")
    content = evaluate(cfg)
    assert content["suites"]["win_rate"]["ties"] == 4 and content["suites"]["win_rate"]["win_rate"] == 0.5


@pytest.fixture
def own_tasks(tmp_path: Path) -> Path:
    """A task of lm-evaluation-harness whose data lies here: what follows in the alphabet."""
    folder = tmp_path / "tasks"
    folder.mkdir()
    rows = [{"question": f"After {a} comes", "choices": list("bcde"), "answer": n} for n, a in enumerate("abcd")]
    (folder / "letters.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "letters.yaml").write_text(
        f"""task: letters
dataset_path: json
dataset_kwargs: {{data_files: {{test: {folder}/letters.jsonl, train: {folder}/letters.jsonl}}}}
output_type: multiple_choice
training_split: train
test_split: test
num_fewshot: 2
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: answer
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
"""
    )
    (folder / "gone.yaml").write_text((folder / "letters.yaml").read_text().replace("letters", "gone"))
    return folder


def test_the_harness_measures_a_task_of_ones_own(tmp_path, own_tasks, monkeypatch):
    overrides = ["evaluation.suites=[lm_eval]", f"evaluation.lm_eval_include_path={own_tasks}"]
    cfg = config(tmp_path, *overrides, "evaluation.lm_eval_tasks=[letters]")
    content = evaluate(cfg)
    found = content["suites"]["lm_eval"]
    assert found["tasks"]["letters"] == {
        "metric": "acc", "value": found["average"], "error": found["tasks"]["letters"]["error"],
        "shots": 2, "questions": 4,
    }  # fmt: skip
    assert found["average"] == _by_hand(cfg)
    out = StringIO()
    report.show(content, Console(file=out, width=110))
    assert "letters acc, 2-shot" in out.getvalue() and "4 questions" in out.getvalue()
    with monkeypatch.context() as patched:  # done: nothing is loaded again
        patched.setattr(harness._Bench, "run", None)
        assert evaluate(cfg) == content
    with pytest.raises(StageError, match="letters.jsonl was made with other(?s:.*)settings.limit: null → 2"):
        evaluate(config(tmp_path, *overrides, "evaluation.lm_eval_tasks=[letters]", "evaluation.lm_eval_limit=2"))
    with pytest.raises(DataError, match="The data set of the task gone can't be loaded: .*HF_HOME"):
        evaluate(config(tmp_path, *overrides, "evaluation.lm_eval_tasks=[gone]"))


def _by_hand(cfg: OnlineConfig) -> float:
    """The random model's accuracy on the letters, from its logits and the prompts as the harness makes them."""
    import torch

    from cut_dist.model.load import load_for_generation, load_tokenizer

    model = load_for_generation(cfg.model, dtype=torch.float32, device=torch.device("cpu"), seed=cfg.seed)
    tokenizer = load_tokenizer(cfg.model)
    manager = harness._task_manager(["letters"], cfg.evaluation.lm_eval_include_path)
    task = manager.load(["letters"])["tasks"]["letters"]
    task.set_fewshot_seed(1234)
    task.build_all_requests(rank=0, world_size=1)
    sums: dict[int, dict[int, float]] = {}
    for request in task.instances:
        prompt, choice = request.args
        ids = tokenizer(prompt + choice, return_tensors="pt", add_special_tokens=False)["input_ids"]
        start = len(tokenizer(prompt, add_special_tokens=False)["input_ids"])
        with torch.no_grad():
            logp = model(ids).logits[0].log_softmax(-1)
        total = sum(logp[at - 1, ids[0, at]].item() for at in range(start, ids.shape[1]))
        sums.setdefault(request.doc_id, {})[request.idx] = total
    return sum(max(each, key=each.get) == doc for doc, each in sums.items()) / len(sums)


def test_a_model_is_told_by_its_weights_or_as_its_server_calls_it(tmp_path):
    folder = tmp_path / "runs/round/default/model"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder.parent / "lineage.json").write_text('{"model": {"name": "base"}}')
    local = ["model=smollm2_135m", f"model.name_or_path={folder}"]
    served = ["generator=endpoint", "generator.endpoint.model=policy"]
    address = "generator.endpoint.base_url=http://localhost:1/v1"
    record = answering_record(config(tmp_path, *local))
    assert record["name"] == str(folder)
    assert record["files"]["model.safetensors"]["sha256"] == hashlib.sha256(b"weights").hexdigest()
    assert display_name(config(tmp_path, *local)) == "round/default"
    of_server = config(tmp_path, *local, *served, address)
    assert answering_record(of_server) == {"name": "policy", "served": True}
    assert display_name(of_server) == "policy"
    started_by_us = config(tmp_path, *local, *served, "generator.serve=[x,'{model}','{port}']")
    assert answering_record(started_by_us) == record


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["stage.output=null"], "stage.output=null: give the folder to write to"),
        (["evaluation.suites=[]"], "evaluation.suites=.*name one at least"),
        ([], "stage.input=null: give the instructions that the suite verifiable asks"),
        (["stage.input=none.jsonl"], "stage.input='none.jsonl': there is no such file"),
        (["evaluation.suites=[rouge]", "evaluation.rouge_path=none"], "evaluation.rouge_path='none': there is no such"),
        (
            ["evaluation.suites=[win_rate]", "evaluation.rival=none", "stage.input=README.md"],
            "evaluation.rival='none': there is no such file",
        ),
    ],
)
def test_what_is_missing_is_said_before_anything_is_loaded(tmp_path, root, monkeypatch, overrides, said):
    monkeypatch.chdir(root)
    with pytest.raises(ConfigError, match=said):
        driver.require_inputs(config(tmp_path, *overrides))


@pytest.mark.parametrize(("suite", "package"), [("lm_eval", "lm_eval"), ("rouge", "rouge_score")])
def test_a_missing_package_is_said_with_the_extra_that_has_it(tmp_path, monkeypatch, suite, package):
    import importlib.util

    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else found(name))
    critiques = tmp_path / "critiques.jsonl"
    critiques.touch()
    cfg = config(tmp_path, f"evaluation.suites=[{suite}]", f"evaluation.rouge_path={critiques}")
    with pytest.raises(ConfigError, match=r"pip install 'cut-dist\[eval\]'"):
        driver.require_inputs(cfg)


def test_several_ranks_are_refused(tmp_path, monkeypatch, heldout):
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match="launch/evaluate.py is one process"):
        driver.require_inputs(config(tmp_path, f"stage.input={heldout}"))


def test_the_command_says_a_mistake_without_loading_torch(root, tmp_path):
    code = "import sys; sys.argv[1:] = ['stage.output=x']; import runpy; runpy.run_path('launch/evaluate.py')"
    check = "assert not {'torch', 'transformers', 'lm_eval', 'datasets'} & set(sys.modules), 'heavy'"
    done = subprocess.run([sys.executable, "-c", f"{code}; {check}"], cwd=root, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    done = subprocess.run(
        [sys.executable, "launch/evaluate.py", f"stage.output={tmp_path}"], cwd=root, capture_output=True, text=True
    )
    assert done.returncode == 2 and "stage.input=null" in done.stderr


def test_an_unknown_task_is_named_with_the_nearest(monkeypatch, tmp_path):
    class Manager:
        all_tasks = ["arc_challenge", "hellaswag"]

        def __init__(self, **_):
            pass

    from lm_eval import tasks

    monkeypatch.setattr(tasks, "TaskManager", Manager)
    with pytest.raises(ConfigError, match="no task 'arc_chalenge'; did you mean arc_challenge?"):
        harness._task_manager(["hellaswag", "arc_chalenge"], None)


def test_a_servers_judge_compares_within_the_driver(tmp_path, heldout, monkeypatch):
    monkeypatch.setenv("CUT_DIST_CACHE", str(tmp_path / "cache"))
    rival = tmp_path / "rival.jsonl"
    rows = [json.loads(line) for line in heldout.read_text().splitlines()]
    write_records(rival, [Response(row["id"], row["id"], row["instruction"], "Theirs.", "stop", 1, 1) for row in rows])

    def prefers_theirs(path: str, payload: dict) -> Answer:
        first = payload["messages"][1]["content"].split("### Response B")[0]
        return Answer(f"Better: {'A' if 'Theirs.' in first else 'B'}")

    with Server(prefers_theirs) as server:
        endpoint = [
            f"judge.endpoint.base_url={server.base_url}",
            "judge.endpoint.model=m",
            "judge.endpoint.input_price=1",
        ]
        cfg = config(
            tmp_path, f"stage.input={heldout}", "judge=endpoint", *endpoint, "evaluation.suites=[win_rate]",
            f"evaluation.rival={rival}",
        )  # fmt: skip
        found = evaluate(cfg)["suites"]["win_rate"]
        assert (found["losses"], found["win_rate"], found["inconsistent"], found["undecided"]) == (4, 0.0, 0, 0)
        assert evaluate(cfg)["suites"]["win_rate"] == found and len(server.seen) == 8
    manifest = read_manifest(tmp_path / "out/win_rate/preferences.jsonl")
    assert manifest["cost"] == pytest.approx(8 * 10 / 1e6)
