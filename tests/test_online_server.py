"""A server of the round's model: up before the stage, gone after it, its failures said."""

from __future__ import annotations

import os
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from cut_dist.config import ConfigError
from cut_dist.config_compose import compose_config
from cut_dist.online.child import StageEnded
from cut_dist.online.config import OnlineConfig
from cut_dist.online.server import serving
from cut_dist.online.stage import StageError

# A worker of its own, as vLLM has; `--slow` takes a while, `--deaf` ignores SIGTERM.
SERVER = """
import http.server, os, signal, subprocess, sys, time
worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(sys.argv, worker.pid, flush=True)
if "--deaf" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
time.sleep(0.5 if "--slow" in sys.argv else 0)
http.server.HTTPServer(("127.0.0.1", int(sys.argv[2])), http.server.SimpleHTTPRequestHandler).serve_forever()
"""


def config(*command: str, timeout: float = 30) -> OnlineConfig:
    serve = "[" + ",".join(f"'{part}'" for part in command) + "]"
    given = ["generator=endpoint", "generator.endpoint.model=policy", f"generator.serve_timeout_s={timeout}"]
    return compose_config("online", ["+experiment=online_smollm2", *given, f"generator.serve={serve}"], OnlineConfig)


def alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def processes(console: Path) -> int:
    return int(console.read_text().splitlines()[0].split()[-1])


@pytest.fixture
def script(tmp_path) -> str:
    (tmp_path / "server.py").write_text(SERVER)
    return str(tmp_path / "server.py")


@pytest.mark.parametrize("flag", ["--slow", "--plain"])
def test_it_answers_within_the_block_and_is_gone_after_it(flag, script, tmp_path):
    console = tmp_path / "console" / "server.log"
    with serving(
        config(sys.executable, script, "{model}", "{port}", flag), "some/model", console, lambda: False
    ) as url:
        with pytest.raises(urllib.error.HTTPError):  # it has no list of models, and is there all the same
            urllib.request.urlopen(f"{url}/models", timeout=5)
        worker = processes(console)
        assert alive(worker) and "'some/model'" in console.read_text()
    time.sleep(0.1)
    assert not alive(worker)
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"{url}/models", timeout=5)


def test_a_server_that_ends_or_does_not_come_up_is_an_error(tmp_path):
    console = tmp_path / "server.log"
    for command, timeout, said in (
        ("import sys; sys.exit(3)", 30, "ended with status 3 before it answered; see .*server.log"),
        (
            "import time; time.sleep(60)",
            1,
            "did not answer at http://127.0.0.1:.*/v1/models within .*serve_timeout_s=1;",
        ),
    ):
        cfg = config(sys.executable, "-c", command, "{model}", "{port}", timeout=timeout)
        with pytest.raises(StageError, match=said), serving(cfg, "m", console, lambda: False):
            pass


def test_a_program_that_is_not_there_is_named(tmp_path):
    cfg = config("no-such-server", "{model}", "{port}")
    said = "generator.serve: no-such-server can't be started: No such file"
    with pytest.raises(StageError, match=said), serving(cfg, "m", tmp_path / "log", lambda: False):
        pass


def test_one_that_still_loads_its_model_is_waited_for_and_no_proxy_is_asked(script, tmp_path, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # nobody is there
    loading = "class Handler(http.server.SimpleHTTPRequestHandler):\n    def do_GET(self):\n        "
    loading += "self.send_error(200 if time.time() > began + 1 else 503)\nbegan = time.time()\n"
    text = SERVER.replace("http.server.HTTPServer", loading + "http.server.HTTPServer")
    Path(script).write_text(text.replace("http.server.SimpleHTTPRequestHandler).serve", "Handler).serve"))
    with serving(config(sys.executable, script, "{model}", "{port}"), "m", tmp_path / "log", lambda: False) as url:
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        assert direct.open(f"{url}/models", timeout=5).status == 200


def test_a_stop_does_not_wait_for_it(script, tmp_path):
    cfg = config(sys.executable, "-c", "import time; time.sleep(60)", "{model}", "{port}")
    began = time.monotonic()
    with pytest.raises(StageEnded), serving(cfg, "m", tmp_path / "log", lambda: time.monotonic() > began + 1):
        pass


def test_one_that_ignores_its_end_is_killed(script, tmp_path, monkeypatch):
    monkeypatch.setattr("cut_dist.online.server._END_S", 0.5)
    console = tmp_path / "log"
    with serving(config(sys.executable, script, "{model}", "{port}", "--deaf"), "m", console, lambda: False):
        worker = processes(console)
    time.sleep(0.1)
    assert not alive(worker) and os.listdir(tmp_path)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["generator.serve=[vllm]"], r"generator.serve=\['vllm'\]: is for generator=endpoint"),
        (["generator=endpoint", "generator.serve=[vllm]"], r"must have \{model\} and \{port\}"),
        (["generator=endpoint", "generator.serve=['{model}','{port}']"], "endpoint.model=null: give the name"),
        (
            ["generator=endpoint", "generator.serve=['{model}','{port}']", "generator.endpoint.model=policy"],
            "a server needs a model with a folder or a name, not random weights",
        ),
    ],
)
def test_a_command_that_can_not_serve_is_refused(overrides, said):
    with pytest.raises(ConfigError, match=said):
        compose_config("online", ["+experiment=online_smoke", *overrides], OnlineConfig)
