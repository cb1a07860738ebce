"""`demo` as people run it: an alert within seconds, and nothing left behind."""

import asyncio
import contextlib
import signal
import socket
from pathlib import Path

from exporter import asgi, demo
from tests.process.agent import get, started


def test_the_demo_shows_an_alert_and_leaves_nothing_behind(tmp_path):
    """Also where the usual port is taken and the environment is made for something else."""
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
        with contextlib.suppress(OSError):  # whoever has it, it is taken
            stack.enter_context(socket.create_server(("127.0.0.1", 10060)))
        process = stack.enter_context(started(tmp_path, "demo", **hostile))
        api = process.line(r"^Simulated Cartesia API +(http://\S+)$").group(1)
        agent = process.line(r"^Agent +(http://127\.0\.0\.1:\d+/)$").group(1)
        metrics = process.line(r"^Metrics +(http://\S+)$").group(1)
        assert get(api).status_code == 401
        assert "demo" in get(agent).text
        for kind in ("slack", "webhook"):
            process.line(rf"ALERT +{kind}: .*(Watching|agent\.baseline)", seconds=30)
            process.line(rf"ALERT +{kind}: .*failed.*Ada for the audiobook", seconds=30)
        assert 'cartesia_up{account="demo"} 1.0' in get(metrics).text
        assert agent != "http://127.0.0.1:10060/"
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        assert not children.exists() or children.read_text(encoding="ascii") == ""
        assert process.stop(signal.SIGINT) == 0
        assert process.lines[-1] == "Ended; nothing was left behind."
        assert "Traceback" not in process.text
    assert list(folder.iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tmp"]


def test_the_demo_takes_the_usual_port_when_it_can(monkeypatch):
    asked = []

    async def listen(host, port):
        asked.append((host, port))
        return socket.socket()

    monkeypatch.setattr(asgi, "listen", listen)
    assert asyncio.run(demo._free_port()) == 10060
    assert asked == [("127.0.0.1", 10060)]
