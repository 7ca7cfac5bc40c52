"""`cut_dist.process`: a process that is asked to stop, and is asked again."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

# `held` is let go of when Python has given the signals back already, as the modules of torch are.
PROGRAM = """
import os, signal, time
from cut_dist.process import StopSignal
class Held:
    def __del__(self, write=os.write, sleep=time.sleep):
        write(1, b"ending\\n")
        sleep(1)
stop, held = StopSignal(interrupt=True), Held()
os.write(1, b"ready\\n")
while not stop.asked:
    time.sleep(0.01)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_changes_nothing_for_a_process_that_is_about_to_end(root, number):
    process = subprocess.Popen([sys.executable, "-c", PROGRAM], cwd=root, text=True, stdout=subprocess.PIPE)
    with process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.stdout.readline() == "ending\n"
        process.send_signal(number)
    assert process.returncode == 0
