"""`simulate` as a process: address, flags, end."""

import re
import signal
import socket
import time

from tests.process.agent_process import get, run, started, until

HEADERS = {"Authorization": "Bearer sk_car_any", "Cartesia-Version": "2026-03-01"}


def test_the_simulator_serves_the_world_of_its_flags(tmp_path):
    flags = (
        *("--listen", "127.0.0.1:0", "--fine-tunes", "7", "--latency", "50ms"),
        *("--tick", "50ms", "--churn", "1", "--seed", "3"),
    )
    with started(tmp_path, "simulate", *flags) as process:
        url = process.wait_for_line(r"Simulated Cartesia API: (http://127\.0\.0\.1:\d+)$").group(1)
        started_at = time.monotonic()
        first = get(f"{url}/fine-tunes/", **HEADERS).json()
        assert time.monotonic() - started_at >= 0.05
        assert len(first["data"]) == 7
        assert first["has_more"] is False
        until(lambda: get(f"{url}/fine-tunes/", **HEADERS).json() != first)
        assert process.stop(signal.SIGINT, seconds=5) == 0
        assert not re.search("Traceback|Exception", process.output)


def test_a_port_in_use_is_named(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as used_socket:
        address = f"127.0.0.1:{used_socket.getsockname()[1]}"
        done = run(tmp_path, "simulate", "--listen", address)
    assert done.returncode == 1
    assert done.stderr == (
        f"cartesia-exporter: cannot listen on {address}: Address already in use\n"
    )
