"""A hundred accounts polled each three seconds by one process; some of them fail."""

import re
import statistics
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.requests import Request

from tests.process.agent_process import (
    INSTALLED,
    NO_AUTHORITIES,
    Agent,
    Process,
    get,
    until,
    url_of,
)
from tests.process.fake_api import Api, agent_config, fake_api

pytestmark = pytest.mark.usefixtures("unmeasured")

HEALTHY = [f"healthy-{number}" for number in range(88)]
HANGING = [f"hanging-{number}" for number in range(8)]
FAILURE_REASONS = {
    **dict.fromkeys(HANGING, "timeout"),
    "refused": "unauthorized",
    "keyless": "unauthorized",
    "behind-a-dead-proxy": "connect",
    "untrusted": "tls",
}
FINE_TUNES = 7
POLLS = 3
INTERVAL = 3.0
REFUSED_INTERVAL = 10 * INTERVAL
"""Seconds between two polls with a refused key: ten intervals."""


def key(name: str) -> str:
    return "not_a_key_at_all" if name == "refused" else f"sk_car_test.{name}"


@dataclass
class RequestCounts:
    """Counts the requests to the API by key."""

    by_key: Counter[str] = field(default_factory=Counter)

    def count(self, request: Request) -> None:
        self.by_key[request.headers["authorization"].removeprefix("Bearer ")] += 1

    def of(self, *names: str) -> list[int]:
        return [self.by_key[key(name)] for name in names]


def accounts(url: str, key_file: Path) -> list[dict[str, Any]]:
    special: Mapping[str, Mapping[str, Any]] = {
        "keyless": {"api_key": None, "api_key_file": str(key_file)},
        "behind-a-dead-proxy": {"proxy_url": "http://127.0.0.1:1"},
        "untrusted": {"base_url": url.replace("http:", "https:")},
    }
    # In the middle of the list: sequential polls would delay the accounts after them.
    names = [*HEALTHY[:50], *FAILURE_REASONS, *HEALTHY[50:]]
    plain = [{"name": name, "api_key": key(name), "base_url": url} for name in names]
    return [{**each, **special.get(each["name"], {})} for each in plain]


def hold(api: Api) -> None:
    """Never answer the requests of the hanging accounts."""
    hanging = {(b"authorization", f"Bearer {key(name)}".encode()) for name in HANGING}
    api.is_held = lambda scope: not hanging.isdisjoint(scope["headers"])
    api.gate.close()


def samples_of(url: str, name: str) -> dict[tuple[str, ...], float]:
    """Return samples by label values; parsing the whole page would take long."""
    text = get(f"{url}/metrics", **{"Accept-Encoding": "identity"}).text
    lines = re.findall(rf"^{name}{{(.*)}} (\S+)$", text, re.MULTILINE)
    return {tuple(re.findall(r'"(.*?)"', labels)): float(value) for labels, value in lines}


def failing_accounts(url: str) -> set[str]:
    return {account for (account,), up in samples_of(url, "cartesia_up").items() if not up}


def measure(url: str, process: Process, counts: RequestCounts) -> tuple[list[float], int]:
    """Wait for some polls; return the response times and the largest number of open files."""
    durations, files, folder = [], [], Path(f"/proc/{process.pid}/fd")
    with httpx.Client(verify=NO_AUTHORITIES, trust_env=False, timeout=10) as client:

        def polled() -> bool:
            started = time.monotonic()
            assert client.get(f"{url}/-/healthy").status_code == 200
            durations.append(time.monotonic() - started)
            files.append(len(list(folder.iterdir())))
            return min(counts.of(*HEALTHY)) >= POLLS

        until(polled, 60)
    return durations, max(files)


def test_failing_accounts_neither_delay_nor_hide_the_others(tmp_path):
    counts, key_file = RequestCounts(), tmp_path / "key"
    key_file.write_text(key("keyless"), encoding="utf-8")
    with fake_api() as (api, _):
        for _ in range(FINE_TUNES):
            api.world.add(status="completed")
        api.answer = counts.count
        hold(api)
        config = agent_config(api, interval=f"{INTERVAL:g}s")
        settings = {**config, "accounts": accounts(api.url, key_file)}
        started = time.monotonic()
        # A new interpreter: one that was forked takes a third more time for the same polls.
        with Agent(tmp_path, **settings).process(command=INSTALLED) as process:
            url = url_of(process)
            key_file.unlink()
            durations, files = measure(url, process, counts)
            assert files < len(HEALTHY) + 60, "more than one connection per poll"
            before, after = counts.of(*HEALTHY[:50]), counts.of(*HEALTHY[50:])
            # On a busy machine those that began first are ahead by some polls.
            assert statistics.mean(after) >= 0.6 * statistics.mean(before), (
                "accounts after those that hang would be behind"
            )
            elapsed = time.monotonic() - started
            assert counts.of("refused")[0] <= 1 + elapsed / REFUSED_INTERVAL, (
                "a refused key is retried after ten intervals"
            )
            assert statistics.median(durations) < 0.4, "the event loop is blocked"
            until(lambda: failing_accounts(url) == FAILURE_REASONS.keys())
            failures = samples_of(url, "cartesia_exporter_poll_failures_total")
            assert all(
                failures[account_and_reason] for account_and_reason in FAILURE_REASONS.items()
            )
            counted = Counter[str]()
            for (account, *_), number in samples_of(url, "cartesia_fine_tunes").items():
                counted[account] += int(number)
            assert {name: counted[name] for name in HEALTHY} == dict.fromkeys(HEALTHY, FINE_TUNES)
            assert process.stop() == 0
