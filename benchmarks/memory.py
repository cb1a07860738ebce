"""What 100,000 fine-tunes take, beside the official SDK's models and the dicts of `json`.

Prints a table of the README. Each keeps the list that pages.py serves in a process of its own: the
agent as its command runs it, polling, and two programs that read the list once and hold it. What
counts is by how much the process is larger (VmRSS) than the same one with an empty list.
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

from cartesia import Cartesia
from pages import fine_tunes
from poll import KEY, ROUNDS, naive_client, naive_items, pages

NUMBER = 100_000
SOON, LATER = 3, 8
"""After how many polls the agent is looked at: its memory has to stay as it is."""

UP = 'cartesia_up{account="default"} 1.0'
BEGUN, FAILED = "cartesia_exporter_polls_total{", "cartesia_exporter_poll_failures_total{"
SECONDS = 120.0


def resident(process: str = "self") -> int:
    """Return how many bytes of a process are in memory."""
    status = Path(f"/proc/{process}/status").read_text(encoding="ascii")
    line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


@contextmanager
def agent(base_url: str) -> Iterator[tuple[int, str]]:
    """Run the command; yield its process id, and the URL of its page."""
    with socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
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
    """Return how many polls were complete, or may be yet; 0 while the last one failed."""
    try:
        with urllib.request.urlopen(page) as answered:
            lines = answered.read().decode().splitlines()
    except OSError:  # it does not listen yet
        return 0.0
    if UP not in lines:
        return 0.0
    numbers = [line.rpartition(" ") for line in lines]
    begun = sum(float(number) for name, _, number in numbers if name.startswith(BEGUN))
    return begun - sum(float(number) for name, _, number in numbers if name.startswith(FAILED))


def ours(base_url: str) -> tuple[int, int]:
    """Return how large the agent is after a few polls, and after some more."""
    sizes = []
    with agent(base_url) as (process, page):
        for wanted in (SOON, LATER):
            deadline = time.monotonic() + SECONDS
            while polls(page) < wanted:
                assert time.monotonic() < deadline, f"fewer than {wanted} polls in {SECONDS:.0f} s"
                time.sleep(0.2)
            time.sleep(1)  # the last one counted may be under way
            sizes.append(resident(str(process)))
    return sizes[0], sizes[1]


def other(kind: str, base_url: str) -> int:
    """Return how large a program is that holds the list."""
    command = [sys.executable, __file__, kind, base_url]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def models(base_url: str) -> list[object]:
    return [*Cartesia(api_key=KEY, base_url=base_url).fine_tunes.list(limit=100)]


def dicts(base_url: str) -> list[object]:
    with naive_client() as client:
        return [*naive_items(client, base_url)]


OTHERS = {"sdk": models, "json": dicts}


def sizes(base_url: str) -> list[int]:
    return [*ours(base_url), *(other(kind, base_url) for kind in OTHERS)]


def main() -> None:
    text = sum(len(value.encode()) for item in fine_tunes(NUMBER) for value in item.values())
    rounds = []
    with pages(0, 0) as empty, pages(NUMBER, 0) as full:
        for _ in range(ROUNDS):
            found = zip(sizes(full), sizes(empty), strict=True)
            rounds.append([(grown - base) / NUMBER for grown, base in found])
    columns = [statistics.median(column) for column in zip(*rounds, strict=True)]
    print(f"Resident bytes for each of {NUMBER:,} fine-tunes, medians of {ROUNDS} rounds;", end=" ")
    print(f"their text alone is {text / NUMBER:,.0f}\n")
    print(f"| | agent, {SOON} polls | agent, {LATER} polls | SDK's models | dicts of json |")
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
