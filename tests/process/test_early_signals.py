"""A signal that comes before anything has begun ends the process as cleanly as any other."""

import re
import signal
import subprocess
from pathlib import Path

import pytest

from tests.process.agent_process import MODULE, environment, until

# Holds the process where it has just begun to read its configuration.
HELD = """
import sys, time

class Hold:
    def find_spec(self, name, *_):
        if name == "exporter.config":
            time.sleep(60)

sys.meta_path.insert(0, Hold())
"""


def handles_sigterm(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    caught = re.search(r"^SigCgt:\s*(\w+)", status, re.MULTILINE)
    return caught is not None and bool(int(caught[1], 16) & 1 << signal.SIGTERM - 1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_during_the_start_is_a_clean_end(tmp_path, number):
    (tmp_path / "sitecustomize.py").write_text(HELD, encoding="utf-8")
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
        _, said = process.communicate(timeout=15)
    finally:
        process.kill()
    assert (process.returncode, said) == (0, b"")
