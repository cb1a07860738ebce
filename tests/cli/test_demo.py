"""`demo`: an alert within seconds, and no files left behind."""

import contextlib
import fcntl
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from exporter.cli import demo
from tests.process.agent_process import MODULE, environment, get, started, until

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.long
def test_the_demo_prints_an_alert_and_removes_its_files(tmp_path):
    """Also if the default port is in use and the environment configures something else."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    hostile = {
        "TMPDIR": str(folder),
        "CARTESIA_BASE_URL": "https://nowhere.invalid",
        "CARTESIA_EXPORTER_STORAGE_PATH": "/dev/null/state.db",
        "CARTESIA_EXPORTER_SLACK_URL": "not a URL",
        **dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), "http://127.0.0.1:1"),
    }
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # it is in use already
            stack.enter_context(socket.create_server(("127.0.0.1", 10060)))
        process = stack.enter_context(started(tmp_path, "demo", **hostile))
        api = process.wait_for_line(r"^Simulated Cartesia API +(http://\S+)$").group(1)
        agent = process.wait_for_line(r"^Agent +(http://127\.0\.0\.1:\d+/)$").group(1)
        metrics = process.wait_for_line(r"^Metrics +(http://\S+)$").group(1)
        assert get(api).status_code == 401
        opened = process.wait_for_line(r"^Open (http://\S+) in a browser\.$").group(1)
        assert opened == agent
        process.wait_for_line("The last 7 days are simulated")
        for receiver in ("slack", "webhook"):
            process.wait_for_line(
                rf"ALERT +{receiver}: .*failed.*Ada for the audiobook", seconds=30
            )
        assert get(process.wait_for_line(r"│ Details: (http://\S+)$").group(1)).status_code == 200
        process.wait_for_line(r"│ Trained .* min, usually 2 h .* min$")
        process.wait_for_line(r"Observed \d{4}-\d\d-\d\d \d\d:\d\d UTC$")
        assert 'simulated="true"' in get(metrics).text
        assert 'cartesia_up{account="demo"} 1.0' in get(metrics).text
        assert agent != "http://127.0.0.1:10060/"
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        assert not children.exists() or children.read_text(encoding="ascii") == ""
        assert process.stop(signal.SIGINT) == 0
        assert process.output_lines[-2] == "Ended; all files were removed."
        assert process.output_lines[-1].startswith("Next, watch your own account: ")
        assert "Traceback" not in process.output
    assert list(folder.iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tmp"]


async def test_of_demos_that_start_together_one_has_the_default_port(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    monkeypatch.setattr(demo, "_PORT", port)
    with await demo._listen() as first, await demo._listen() as second:
        assert first.getsockname() == ("127.0.0.1", port)
        assert second.getsockname()[1] not in (0, port)


@pytest.mark.long
def test_a_closed_pipe_ends_the_demo_quietly(tmp_path):
    command = ["sh", "-c", '"$@" | head -2', "sh", *MODULE, "demo"]
    ended = subprocess.run(
        command,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.stdout.count("\n") == 2
    assert ended.stderr == ""
    assert list(tmp_path.iterdir()) == []


def test_a_reader_that_stalls_neither_stops_the_demo_nor_its_end(tmp_path):
    """As after Ctrl-S in a terminal."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, b"x")
    os.set_blocking(writer, True)
    with subprocess.Popen(
        [*MODULE, "demo"],
        env=environment(tmp_path),
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            os.close(writer)
            until(lambda: list(tmp_path.glob("cartesia-exporter-*/state.db")))
            process.send_signal(signal.SIGTERM)
            assert process.communicate(timeout=10)[1] == ""
        finally:
            process.kill()
            os.close(reader)
    assert process.returncode == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not (ROOT / ".venv/runtime").exists(), reason="make has not set up .venv here")
def test_ctrl_c_ends_make_demo_with_0(tmp_path):
    """On a terminal, which sends SIGINT to make as well as to the demo."""
    terminal = "import pty, os, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"
    # The locks may be newer than .venv/runtime: make must not install anything.
    command = ["make", "-C", str(ROOT), "--old-file=.venv/runtime", "demo"]
    with subprocess.Popen(
        [sys.executable, "-c", terminal, *command],
        env={**environment(tmp_path), "TERM": "xterm"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as make:
        try:
            assert make.stdin is not None
            assert make.stdout is not None
            assert any(line.startswith(b"Metrics") for line in make.stdout)
            make.stdin.write(b"\x03")
            make.stdin.flush()
            rest, _ = make.communicate(timeout=20)
        finally:
            make.kill()
    assert make.returncode == 0, rest
    assert b"Ended; all files were removed." in rest
    assert list(tmp_path.iterdir()) == []
