"""Start, memory at rest and `--help`, compared with a bare `prometheus_client` process.

Prints the table of docs/performance.md. The processes take turns in each round, so that a
temporarily slow machine affects all of them. Processor time depends less on what else the machine
does than the time that passes. The exit status is 1 if a limit is exceeded.
"""

import contextlib
import http.client
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from socket import socket

from memory import resident
from poll import KEY, served_list

ROUNDS = 7
REST_SECONDS = 5.0
"""Time after the first response; the first poll is over then, the next one is due after 60 s."""

PEER = "from prometheus_client import start_http_server as s; s({port})[1].join()"
HELP = [sys.executable, "-m", "exporter", "--help"]
PEER_IMPORT = [sys.executable, "-c", "import prometheus_client"]
MAX_FIRST_METRICS, MAX_HELP = 800, 500
"""Milliseconds."""

MAX_AT_REST = 80
"""MiB."""

TICKS = os.sysconf("SC_CLK_TCK")


def serving(name: str, base_url: str) -> tuple[float, float, float]:
    """Start a process that serves /metrics.

    Returns milliseconds until the first response, milliseconds of processor time until then, and
    resident MiB at rest.
    """
    with socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        env = {
            "PATH": os.environ["PATH"],
            "CARTESIA_API_KEY": KEY,
            "CARTESIA_BASE_URL": base_url,
            "CARTESIA_EXPORTER_STORAGE_PATH": f"{folder}/state.db",
        }
        command = {
            "agent": [sys.executable, "-m", "exporter", f"--web.listen-address=127.0.0.1:{port}"],
            "peer": [sys.executable, "-c", PEER.format(port=port)],
        }[name]
        began = time.perf_counter()
        with subprocess.Popen(command, env=env, cwd=folder, stderr=subprocess.DEVNULL) as process:
            try:
                wait_for_response(port)
                first = time.perf_counter() - began
                processor = processor_seconds(process.pid)
                time.sleep(REST_SECONDS)
                at_rest = resident(str(process.pid))
            finally:
                process.terminate()
    return first * 1e3, processor * 1e3, at_rest / 2**20


def wait_for_response(port: int) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        with contextlib.suppress(OSError):
            connection.request("GET", "/metrics")
            if connection.getresponse().status == 200:
                return
        time.sleep(0.002)  # an open port has no notification
    raise TimeoutError("No response within 30 s.")


def processor_seconds(process: int) -> float:
    """Return the user and system time of a process."""
    fields = Path(f"/proc/{process}/stat").read_text(encoding="ascii").rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def command_time(command: list[str]) -> tuple[float, float]:
    """Return the milliseconds that a command takes, and those of processor time."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    passed = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return passed * 1e3, processor * 1e3


def row(title: str, unit: str, ours: list[float], peer: list[float]) -> float:
    """Print medians and the median ratio of the same round; return our median."""
    ratio = statistics.median(mine / other for mine, other in zip(ours, peer, strict=True))
    mine, other = statistics.median(ours), statistics.median(peer)
    print(f"| {title} | {mine:,.0f} {unit} | {other:,.0f} {unit} | {ratio:.1f} |", flush=True)
    return mine


def main() -> int:
    agents, peers, helps, imports = [], [], [], []
    command_time(HELP)  # compiles the modules
    with served_list(25, 0) as base_url:
        for _ in range(ROUNDS):
            agents.append(serving("agent", base_url))
            peers.append(serving("peer", base_url))
            helps.append(command_time(HELP))
            imports.append(command_time(PEER_IMPORT))
    print("| | cartesia-exporter | prometheus_client | ratio |\n|---|--:|--:|--:|")
    ours, bare = [*map(list, zip(*agents, strict=True))], [*map(list, zip(*peers, strict=True))]
    first = row("from the start to the first /metrics", "ms", ours[0], bare[0])
    row("processor time until then", "ms", ours[1], bare[1])
    at_rest = row("resident memory at rest", "MiB", ours[2], bare[2])
    ours, bare = [*map(list, zip(*helps, strict=True))], [*map(list, zip(*imports, strict=True))]
    help_time = row("`--help` / import of prometheus_client", "ms", ours[0], bare[0])
    row("processor time of these", "ms", ours[1], bare[1])
    too_much = first > MAX_FIRST_METRICS or at_rest > MAX_AT_REST or help_time > MAX_HELP
    print(f"\nLimits: {MAX_FIRST_METRICS} ms, {MAX_AT_REST} MiB, {MAX_HELP} ms for `--help`.")
    return int(too_much)


if __name__ == "__main__":
    sys.exit(main())
