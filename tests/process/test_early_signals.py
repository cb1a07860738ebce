"""Signals during the start, before there is anything to shut down."""

import re
import signal
import subprocess
from pathlib import Path

import pytest

from tests.process.agent_process import MODULE, environment, until

# Blocks the process when it is about to read its configuration.
BLOCKED = """
import sys, time

class Block:
    def find_spec(self, name, *_):
        if name == "exporter.config":
            time.sleep(60)

sys.meta_path.insert(0, Block())
"""


def handles_sigterm(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    caught = re.search(r"^SigCgt:\s*(\w+)", status, re.MULTILINE)
    return caught is not None and bool(int(caught[1], 16) & 1 << signal.SIGTERM - 1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_during_the_start_ends_with_0_and_no_output(tmp_path, number):
    (tmp_path / "sitecustomize.py").write_text(BLOCKED, encoding="utf-8")
    process = subprocess.Popen(
        [*MODULE, "--web.listen-address=127.0.0.1:0"],
        cwd=tmp_path,
        env=environment(tmp_path, PYTHONPATH=str(tmp_path)),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        until(lambda: handles_sigterm(process.pid))
        process.send_signal(number)
        _, stderr = process.communicate(timeout=15)
    finally:
        process.kill()
    assert (process.returncode, stderr) == (0, b"")
