"""The recorder in a terminal: log lines go above the progress bar, and the bar fits; elsewhere nothing changes."""

from __future__ import annotations

import io
import logging
import sys

import pytest
from rich.text import Text

from cut_dist.config_compose import compose_config
from cut_dist.data.examples import Prepared
from cut_dist.recorder import Recorder
from cut_dist.run_start import Start

RECORD = {"loss": 12.3456, "tokens_per_s": 123456.7, "p_inappropriate": 0.5, "share_inappropriate": 0.1, "lr": 1e-5}


class Stream(io.StringIO):
    """A standard error that is, or is not, a terminal."""

    def __init__(self, terminal: bool):
        super().__init__()
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


@pytest.fixture
def written(tmp_path, monkeypatch):
    """What two steps and a log line between them write to standard error; a terminal has 80 columns."""

    def write(terminal: bool) -> list[str]:
        stream = Stream(terminal)
        monkeypatch.setattr(sys, "stderr", stream)
        for name, value in {"COLUMNS": "80", "LINES": "25", "TERM": "xterm"}.items():
            monkeypatch.setenv(name, value)
        handler = logging.StreamHandler()
        monkeypatch.setattr(logging.getLogger(), "handlers", [handler])
        monkeypatch.setattr(logging.getLogger("cut_dist"), "level", logging.INFO)
        cfg = compose_config("train", ["+experiment=smoke", f"run.root={tmp_path}"])
        data = Prepared(train=[], heldout=[], rejects=[], counts={}, content_hash="abc")
        recorder = Recorder(cfg, data, Start("fresh", "", str(tmp_path)), world_size=1)
        recorder.begin_progress(9997, 9999)
        recorder.step({"step": 9998, **RECORD}, 9999)
        logging.getLogger("cut_dist").warning("a log line")
        recorder.step({"step": 9999, **RECORD}, 9999)
        recorder.close(0)
        assert sys.stderr is handler.stream is stream, "nothing writes through the bar once it is gone"
        return stream.getvalue().split("\n")

    return write


def test_in_a_terminal_a_log_line_has_a_line_of_its_own_above_the_bar(written):
    lines = [Text.from_ansi(line.rpartition("\r")[2]).plain for line in written(terminal=True)]
    assert "a log line" in lines
    assert any(line.rstrip().endswith("9999/9999 0:00:00 0:00:00 loss 12.3456  123457 tok/s") for line in lines)


def test_elsewhere_each_step_is_a_line_that_says_more(written):
    line = "step 999%d/9999  loss 12.3456  p(inappropriate) 0.500  lr 1.00e-05  123457 tok/s"
    assert written(terminal=False) == [line % 8, "a log line", line % 9, ""]
