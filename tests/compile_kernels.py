"""Compiles the kernel for a GPU that need not be there, in all its configurations, and prints what came out as JSON.

`python tests/compile_kernels.py 90` for sm_90, without TRITON_INTERPRET. The kernel's own launcher is called, with
tensors on the CPU; only the launch itself is left out. So arguments have the types and attributes of a real launch.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from itertools import product
from pathlib import Path

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction

from cut_dist.kernels import cut_loss_triton, scale_triton
from cut_dist.kernels.arguments import Objective, Rows

TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
OBJECTIVE = Objective(1.1, 0.5, 0.5)
# Short rows, long ones, and two that cannot be read 16 bytes at a time.
VOCABULARIES = (4096, 128256, 32001, 1)


class AbsentGPU:
    """As much of Triton's driver as compiling asks for."""

    def __init__(self, capability: int) -> None:
        self.target = GPUTarget("cuda", capability, 32)

    def get_current_target(self):
        return self.target

    def get_current_device(self):
        return 0

    def get_current_stream(self, device):
        return 0


def kernels() -> list:
    """All that was compiled so far, oldest first."""
    return list(cut_loss_triton._cut_row.device_caches[0][0].values())


def launch(
    dtype: torch.dtype,
    vocabulary: int,
    contexts: int,
    gradients: bool,
    objective: Objective = OBJECTIVE,
    first: int = 0,
):
    """The kernel for 3 contexts, 2 (contrast with the instruction) or 1 (Align-P rows only); row `first` of labels."""
    logits = [torch.zeros(1, vocabulary, dtype=dtype) for _ in range(contexts)] + [None] * (3 - contexts)
    is_negative = torch.ones(4, dtype=torch.bool)[first:] if contexts > 1 else None
    rows = Rows(*logits, torch.zeros(4, dtype=torch.int64)[first:], is_negative, torch.ones(4)[first:])
    cut_loss_triton.cut_rows(rows, objective, *(logits[:2] if gradients else ()))
    return kernels()[-1]


def columns_of_a_thread(vocabulary: int, dtype: torch.dtype) -> int:
    """How many neighbouring logits, at most, a thread has of one tile."""
    tile = cut_loss_triton._launch([vocabulary], dtype)
    return tile["LANES"] * tile["VEC"] // (32 * tile["num_warps"])


def tool(name: str, kernel, *options: str) -> str:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        command = [TOOLS / name, *options, file.name]
        return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True).stdout


def reads_labels_logits_first(ptx: str) -> bool:
    """Whether all warps meet between each read of a single number and the write of a gradient that follows.

    In place the label's logit lies where a gradient goes. Tiles are told by their eviction hints.
    """
    writes = [write.start() for write in re.finditer(r"st\.global\.\S*evict_first", ptx)]
    single = [read.end() for read in re.finditer(r"ld\.global\.\S+", ptx) if "evict" not in read.group()]
    spans = [(read, min(later)) for read in single if (later := [write for write in writes if write > read])]
    return bool(spans) == bool(writes) and all("bar.sync" in ptx[read:write] for read, write in spans)


def count_instructions(code: str) -> tuple[int, list[int]]:
    """Of a disassembled kernel: all, and those of each of its loops in order."""
    lengths, labels, count = [], {}, 0
    for label, instruction in re.findall(r"^(?:(\.L_x_\d+):|\s*/\*[0-9a-f]{4,}\*/\s+(.*?);)", code, re.MULTILINE):
        if label:
            labels[label] = count
            continue
        count += 1
        target = re.search(r"BRA\S*\s.*?`\((\.L_x_\d+)\)", instruction)
        if target and target[1] in labels:
            lengths.append(count - labels[target[1]])
    return count, [length for length in lengths if length > 1]  # the kernel's end is a jump to itself


def describe(kernel, *, disassemble: bool) -> dict:
    """Registers, bytes spilled, and how wide tiles are read and written: those accesses have an eviction hint."""
    usage = dict(re.findall(r"(REG|STACK|LOCAL):(\d+)", tool("cuobjdump", kernel, "-res-usage")))
    found = {"registers": int(usage["REG"]), "spilled": int(usage["STACK"]) + int(usage["LOCAL"])}
    found["ptx"] = sorted(set(re.findall(r"(?:ld|st)\.global\.\S*evict_\S*?\.((?:v\d\.)?b\d+)\b", kernel.asm["ptx"])))
    found["in_order"] = reads_labels_logits_first(kernel.asm["ptx"])
    found["rounding"] = sorted(set(re.findall(r"cvt\.(r\w+)\.(?:satfinite\.)?(?:bf16|f16)", kernel.asm["ptx"])))
    if disassemble:
        code = tool("nvdisasm", kernel)
        found["instructions"], found["loops"] = count_instructions(code)
        found["sass"] = sorted(set(re.findall(r"\b(?:LDG|STG)\.E\.E[FL]\.(\w+)", code)))
        found["spilled"] += len(re.findall(r"\b(?:LDL|STL)\b", code))
    return found


def scale_kernels() -> list[dict]:
    """The kernel of scale_triton for each type and whatever factor."""
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        scale_triton.scale_(torch.zeros(4096 * 16, dtype=dtype), torch.ones(()))
    compiled = list(scale_triton._scale.device_caches[0][0].values())
    return [describe(kernel, disassemble=False) for kernel in compiled]


def main() -> None:
    triton.runtime.driver.set_active(AbsentGPU(int(sys.argv[1])))
    run = JITFunction.run
    JITFunction.run = lambda self, *args, warmup, **kwargs: run(self, *args, warmup=True, **kwargs)
    found = []
    for dtype, vocabulary, contexts, gradients in product(
        (torch.bfloat16, torch.float16, torch.float32), VOCABULARIES, (3, 2, 1), (True, False)
    ):
        if vocabulary % 16 and (contexts, gradients) != (3, True):
            continue  # the aligned ones are the ones that must be fast
        kernel = launch(dtype, vocabulary, contexts, gradients)
        found.append(
            {"name": f"{dtype} V={vocabulary} {contexts} contexts gradients={gradients}", "vocabulary": vocabulary}
            | {"columns": columns_of_a_thread(vocabulary, dtype)}
            | describe(kernel, disassemble=(contexts, gradients) == (3, True))
        )
    compiled = len(kernels())
    for numbers in ((1, 0, 2), (1.0, 1.0, 0.0), (0.3, 16.0, 1e-3), (0, 1, 1, 1.3, 1)):
        launch(torch.bfloat16, 4096, 3, True, Objective(*numbers), first=1)
    results = {"kernels": found, "compiled": compiled, "compiled_in_the_end": len(kernels()), "scale": scale_kernels()}
    json.dump(results, sys.stdout)


if __name__ == "__main__":
    main()
