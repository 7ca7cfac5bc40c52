"""The Triton kernel compiled for GPUs that are not there: it fits in the registers and reads 16 bytes at a time."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

TARGETS = (80, 90, 100)


@pytest.fixture(scope="module")
def compiled(root) -> dict[int, dict]:
    """What tests/compile_kernels.py says of each target; all targets compile at once."""
    env = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"} | {"PYTHONPATH": str(root)}
    running = {
        target: subprocess.Popen(
            [sys.executable, root / "tests" / "compile_kernels.py", str(target)],
            env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for target in TARGETS
    }  # fmt: skip
    results = {}
    for target, process in running.items():
        output, errors = process.communicate(timeout=500)
        assert process.returncode == 0, errors[-5000:]
        results[target] = json.loads(output)
    return results


@pytest.mark.parametrize("target", TARGETS)
def test_every_configuration_fits_in_the_registers(compiled, target):
    kernels = compiled[target]["kernels"]
    assert len(kernels) == 3 * (2 * 3 * 2 + 2)  # dtypes × (aligned rows × contexts × gradients or not + unaligned rows)
    assert not [kernel for kernel in kernels if kernel["spilled"]]


@pytest.mark.parametrize("target", TARGETS)
def test_aligned_rows_are_read_and_written_16_bytes_at_a_time(compiled, target):
    aligned = [kernel for kernel in compiled[target]["kernels"] if kernel["vocabulary"] % 16 == 0]
    assert not [kernel for kernel in aligned if kernel["ptx"] != ["v4.b32"]]
    disassembled = [kernel["sass"] for kernel in aligned if "sass" in kernel]
    assert disassembled == [["128"]] * 6  # each dtype, short and long rows


@pytest.mark.parametrize("target", TARGETS)
def test_no_warp_writes_a_gradient_while_another_may_read_the_label_s_logit(compiled, target):
    """The interpreter, in which nothing runs side by side, can't show it."""
    assert all(kernel["in_order"] for kernel in compiled[target]["kernels"])


def test_no_more_instructions_a_logit_than_the_memory_leaves_time_for(compiled):
    """Five passes, each a loop over the tiles without the label; the label's tile and the rest are outside.

    By its data sheet an H200 (132 multiprocessors, 1.98 GHz; 4.3 TB/s copied) issues 78 while five bf16 logits move.
    """
    for kernel in compiled[90]["kernels"]:
        if "loops" not in kernel or "bfloat16" not in kernel["name"] or kernel["vocabulary"] % 16:
            continue
        assert len(kernel["loops"]) == 5, kernel["name"]
        assert sum(kernel["loops"]) / kernel["columns"] < 48, kernel["name"]
        assert (kernel["instructions"] - sum(kernel["loops"])) / kernel["columns"] < 120, kernel["name"]


@pytest.mark.parametrize("target", TARGETS)
def test_another_objective_or_chunk_compiles_nothing(compiled, target):
    assert compiled[target]["compiled"] == compiled[target]["compiled_in_the_end"]


def test_two_programs_of_short_rows_fit_on_a_multiprocessor(compiled):
    """65536 registers, 512 threads a program."""
    for kernel in compiled[90]["kernels"]:
        if kernel["vocabulary"] == 4096:
            assert kernel["registers"] <= 64, kernel["name"]


@pytest.mark.parametrize("target", TARGETS)
def test_the_upstream_factor_is_multiplied_16_bytes_at_a_time(compiled, target):
    kernels = compiled[target]["scale"]
    assert [kernel["ptx"] for kernel in kernels] == [["v4.b32"]] * 3
    assert not [kernel for kernel in kernels if kernel["spilled"]]


@pytest.mark.parametrize("target", TARGETS)
def test_half_precision_gradients_are_rounded_to_the_nearest(compiled, target):
    """The interpreter does not show it: `round_like_a_gpu` in cut_cases.py mends that."""
    for kernel in compiled[target]["kernels"]:
        half = "float32" not in kernel["name"] and "gradients=True" in kernel["name"]
        assert kernel["rounding"] == (["rn"] if half else []), kernel["name"]
