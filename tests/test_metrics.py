"""metrics.jsonl: exact numbers, valid JSON, and nothing lost but what a kill cut in half."""

from __future__ import annotations

import errno
import json
import math
import random

import numpy as np
import pytest
import torch

from cut_dist.metrics import MetricsError, MetricsLog, read_metrics


@pytest.fixture
def path(tmp_path):
    return tmp_path / "metrics.jsonl"


def fill(path, steps):
    with MetricsLog(path) as metrics:
        for step in steps:
            metrics.append({"step": step, "loss": 1 / (step + 1)})


def test_floats_keep_every_bit(path):
    values = [
        0.1 + 0.2,
        1e-320,
        -0.0,
        5e-324,
        1.7976931348623157e308,
        *(random.Random(0).gauss(0, 1) for _ in range(200)),
    ]
    with MetricsLog(path) as metrics:
        for step, value in enumerate(values):
            metrics.append({"step": step, "loss": value})
            assert len(read_metrics(path)) == step + 1  # readable at once
    assert [record["loss"].hex() for record in read_metrics(path)] == [value.hex() for value in values]


def test_every_line_is_strict_json_and_non_finite_numbers_come_back(path):
    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    record = {
        "step": 1,
        "loss": math.nan,
        "norm": math.inf,
        "deep": {"low": [-math.inf, 1.5]},
        "note": "a\nb",
    }
    with MetricsLog(path) as metrics:
        metrics.append(record)
    (line,) = path.read_text().splitlines()
    assert json.loads(line, parse_constant=refuse)["loss"] == "nan"
    (back,) = read_metrics(path)
    assert math.isnan(back.pop("loss"))
    assert back == {"step": 1, "norm": math.inf, "deep": {"low": [-math.inf, 1.5]}, "note": "a\nb"}


def test_numpy_and_torch_scalars(path):
    with MetricsLog(path) as metrics:
        metrics.append(
            {"step": 3, "a": np.float32(0.5), "b": torch.tensor(2), "c": np.float64("nan"), "d": True}
        )
        with pytest.raises((RuntimeError, ValueError)):
            metrics.append({"step": 4, "a": torch.zeros(2)})
    (record,) = read_metrics(path)
    assert (record["a"], record["b"], record["d"]) == (0.5, 2, True) and math.isnan(record["c"])


@pytest.mark.parametrize("record", [{}, {"step": None}, {"step": 1.0}, {"step": True}, {"step": "1"}])
def test_a_record_needs_its_step(path, record):
    with MetricsLog(path) as metrics, pytest.raises(ValueError, match="integer 'step'"):
        metrics.append(record)
    assert path.read_bytes() == b""


def test_a_line_cut_anywhere_is_repaired_and_the_others_stay(path):
    fill(path, range(3))
    whole = path.read_bytes()
    last = whole.rindex(b"\n", 0, -1) + 1
    for cut in range(last, len(whole)):
        path.write_bytes(whole[:cut])
        assert [record["step"] for record in read_metrics(path)] == [0, 1]
        fill(path, [7])
        assert [record["step"] for record in read_metrics(path)] == [0, 1, 7]


@pytest.mark.parametrize(
    "tail", [b"\0" * 100, b"\0\0\n\0\0", b'{"step": 9, "lo', b"{}\n", b'"text"\n', b"\n", b"\xff\n"]
)
def test_trailing_bytes_that_are_no_record_are_cut_off(path, tail, caplog):
    fill(path, range(3))
    whole = path.read_bytes()
    path.write_bytes(whole + tail)
    MetricsLog(path).close()
    assert path.read_bytes() == whole
    assert f"cut off {len(tail)} bytes" in caplog.text


def test_a_file_without_any_record_starts_empty(path):
    path.write_bytes(b"\0\0\0")
    MetricsLog(path).close()
    assert path.read_bytes() == b"" and read_metrics(path) == []


def test_truncate_after_drops_later_steps_only_and_goes_on(path):
    fill(path, [0, 10, 10, 20, 30, 5])
    with MetricsLog(path) as metrics:
        assert metrics.truncate_after(10) == 2
        metrics.append({"step": 11})
        assert metrics.truncate_after(11) == 0
    assert [record["step"] for record in read_metrics(path)] == [0, 10, 10, 5, 11]
    assert [entry.name for entry in path.parent.iterdir()] == ["metrics.jsonl"]


def test_kept_lines_are_the_same_bytes(path):
    fill(path, range(20))
    whole = path.read_bytes().splitlines(keepends=True)
    with MetricsLog(path) as metrics:
        metrics.truncate_after(9)
        metrics.sync()
    assert path.read_bytes().splitlines(keepends=True) == whole[:10]


def test_a_bad_line_in_the_middle_is_named(path):
    fill(path, range(3))
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b"garbage\n" + lines[2])
    with pytest.raises(MetricsError, match=r"metrics.jsonl:2 is not a metrics record: b'garbage"):
        read_metrics(path)
    with MetricsLog(path) as metrics, pytest.raises(MetricsError):
        metrics.truncate_after(0)
    assert len(path.read_bytes().splitlines()) == 3


def test_a_full_disk_does_not_glue_two_records(path):
    metrics = MetricsLog(path)
    metrics.append({"step": 1})
    file = metrics._file

    class Full:
        calls = 0

        def write(self, data):
            self.calls += 1
            if self.calls > 1:
                raise OSError(errno.ENOSPC, "No space left on device")
            return file.write(data[:5])

        def __getattr__(self, name):
            return getattr(file, name)

    metrics._file = Full()
    with pytest.raises(OSError, match="No space"):
        metrics.append({"step": 2})
    metrics._file = file
    metrics.append({"step": 3})
    metrics.close()
    assert [record["step"] for record in read_metrics(path)] == [1, 3]
