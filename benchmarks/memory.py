"""Memory for 100,000 fine-tunes, compared with the official SDK's models and the dicts of `json`.

Prints the memory figures of docs/performance.md. Three processes keep the list that api_server.py
serves: the agent while it polls, and two programs that read the list once. The result is the
difference in resident memory (VmRSS) from the same process with an empty list.
"""

import gc
import json
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from socket import socket

from api_server import fine_tunes
from cartesia import Cartesia
from poll import KEY, ROUNDS, naive_client, naive_items, served_list

NUMBER = 100_000
EARLY, LATER = 3, 8
"""Memory is measured after these numbers of polls: it must not grow."""

UP = 'cartesia_up{account="default"} 1.0'
STARTED, FAILED = "cartesia_exporter_polls_total{", "cartesia_exporter_poll_failures_total{"
TIMEOUT_SECONDS = 120.0


def resident(process: str = "self") -> int:
    """Return the resident memory of a process in bytes."""
    status = Path(f"/proc/{process}/status").read_text(encoding="ascii")
    line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


@contextmanager
def agent(base_url: str) -> Iterator[tuple[int, str]]:
    """Run the agent; yield its process id and the URL of its metrics."""
    with socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        configuration = Path(folder, "config.yaml")
        account = {"name": "default", "base_url": base_url, "api_key": KEY}
        content = {
            "accounts": [account],
            "storage": {"path": f"{folder}/state.db"},
            "poll": {"interval": "5s", "timeout": "4900ms", "concurrency": 16},
        }
        configuration.write_text(json.dumps(content), encoding="utf-8")  # which is YAML as well
        flags = [f"--config.file={configuration}", f"--web.listen-address=127.0.0.1:{port}"]
        command = [sys.executable, "-m", "exporter", *flags, "--log.level=error"]
        with subprocess.Popen(command, cwd=folder) as process:
            try:
                yield process.pid, f"http://127.0.0.1:{port}/metrics"
            finally:
                process.terminate()


def polls(page: str) -> float:
    """Return the number of complete polls, with one under way; 0 while the last one failed."""
    try:
        with urllib.request.urlopen(page) as response:
            lines = response.read().decode().splitlines()
    except OSError:  # the agent does not listen yet
        return 0.0
    if UP not in lines:
        return 0.0
    numbers = [line.rpartition(" ") for line in lines]
    started = sum(float(number) for name, _, number in numbers if name.startswith(STARTED))
    return started - sum(float(number) for name, _, number in numbers if name.startswith(FAILED))


def agent_memory(base_url: str) -> tuple[int, int]:
    """Return the memory of the agent in bytes, after EARLY and after LATER polls."""
    sizes = []
    with agent(base_url) as (process, page):
        for number in (EARLY, LATER):
            deadline = time.monotonic() + TIMEOUT_SECONDS
            while polls(page) < number:
                assert time.monotonic() < deadline, (
                    f"fewer than {number} polls in {TIMEOUT_SECONDS:.0f} s"
                )
                time.sleep(0.2)
            time.sleep(1)  # the last poll may still be under way
            sizes.append(resident(str(process)))
    return sizes[0], sizes[1]


def other_memory(name: str, base_url: str) -> int:
    """Return the memory of a program that keeps the list, in bytes."""
    command = [sys.executable, __file__, name, base_url]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def models(base_url: str) -> list[object]:
    return [*Cartesia(api_key=KEY, base_url=base_url).fine_tunes.list(limit=100)]


def dicts(base_url: str) -> list[object]:
    with naive_client() as client:
        return [*naive_items(client, base_url)]


OTHERS = {"sdk": models, "json": dicts}


def memory(base_url: str) -> list[int]:
    return [*agent_memory(base_url), *(other_memory(name, base_url) for name in OTHERS)]


def main() -> None:
    text = sum(len(value.encode()) for item in fine_tunes(NUMBER) for value in item.values())
    rounds = []
    with served_list(0, 0) as empty, served_list(NUMBER, 0) as full:
        for _ in range(ROUNDS):
            found = zip(memory(full), memory(empty), strict=True)
            rounds.append([(grown - base) / NUMBER for grown, base in found])
    columns = [statistics.median(column) for column in zip(*rounds, strict=True)]
    print(f"Resident bytes for each of {NUMBER:,} fine-tunes, medians of {ROUNDS} rounds;", end=" ")
    print(f"their text alone is {text / NUMBER:,.0f}\n")
    print(f"| | agent, {EARLY} polls | agent, {LATER} polls | SDK's models | dicts of json |")
    print("|--:" * 5 + "|")
    print("| all |", " | ".join(f"{each:,.0f}" for each in columns), "|")
    print("| beyond the text |", " | ".join(f"{e - text / NUMBER:,.0f}" for e in columns), "|")
    ratios = [statistics.median(row[n] / row[1] for row in rounds) for n in range(len(columns))]
    print(f"| / agent, {LATER} polls |", " | ".join(f"{each:.2f}" for each in ratios), "|")


if __name__ == "__main__":
    if len(sys.argv) == 1:
        main()
    else:
        kept = OTHERS[sys.argv[1]](sys.argv[2])
        gc.collect()
        print(resident())
