"""Two hundred accounts polled each second by one process, some of which are in trouble."""

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

from tests.process.agent_process import Agent, Process, get, until, url_of
from tests.process.fake_api import Api, agent_config, fake_api

pytestmark = pytest.mark.usefixtures("unmeasured")

CIRCUIT_CLOSED = [f"well-{number}" for number in range(188)]
HANGING = [f"hanging-{number}" for number in range(8)]
TROUBLES = {
    **dict.fromkeys(HANGING, "timeout"),
    "refused": "unauthorized",
    "keyless": "unauthorized",
    "behind-a-dead-proxy": "connect",
    "untrusted": "tls",
}
FINE_TUNES = 7
TURNS = 5


def key(name: str) -> str:
    return "not_a_key_at_all" if name == "refused" else f"sk_car_test.{name}"


@dataclass
class Asked:
    """How often the API was asked with each key."""

    times: Counter[str] = field(default_factory=Counter)

    def note(self, request: Request) -> None:
        self.times[request.headers["authorization"].removeprefix("Bearer ")] += 1

    def of(self, *names: str) -> list[int]:
        return [self.times[key(name)] for name in names]


def accounts(url: str, key_file: Path) -> list[dict[str, Any]]:
    special: Mapping[str, Mapping[str, Any]] = {
        "keyless": {"api_key": None, "api_key_file": str(key_file)},
        "behind-a-dead-proxy": {"proxy_url": "http://127.0.0.1:1"},
        "untrusted": {"base_url": url.replace("http:", "https:")},
    }
    # In the midst of the others: who waits for those before it would wait for these.
    names = [*CIRCUIT_CLOSED[:100], *TROUBLES, *CIRCUIT_CLOSED[100:]]
    plain = [{"name": name, "api_key": key(name), "base_url": url} for name in names]
    return [{**each, **special.get(each["name"], {})} for each in plain]


def hold(api: Api) -> None:
    """Have the API never answer the accounts that hang."""
    hanging = {(b"authorization", f"Bearer {key(name)}".encode()) for name in HANGING}
    api.is_held = lambda scope: not hanging.isdisjoint(scope["headers"])
    api.gate.close()


def shown(url: str, name: str) -> dict[tuple[str, ...], float]:
    """The samples of a name by the values of their labels; the whole page is long to parse."""
    text = get(f"{url}/metrics", **{"Accept-Encoding": "identity"}).text
    lines = re.findall(rf"^{name}{{(.*)}} (\S+)$", text, re.MULTILINE)
    return {tuple(re.findall(r'"(.*?)"', labels)): float(value) for labels, value in lines}


def in_trouble(url: str) -> set[str]:
    return {account for (account,), up in shown(url, "cartesia_up").items() if not up}


def watched(url: str, process: Process, asked: Asked) -> tuple[list[float], int]:
    """Wait until the well were polled often; return how long answers took, and most open files."""
    took, files, folder = [], [], Path(f"/proc/{process.pid}/fd")
    with httpx.Client(trust_env=False, timeout=10) as client:

        def over() -> bool:
            begun = time.monotonic()
            assert client.get(f"{url}/-/healthy").status_code == 200
            took.append(time.monotonic() - begun)
            files.append(len(list(folder.iterdir())))
            return min(asked.of(*CIRCUIT_CLOSED)) >= TURNS

        until(over, 25)
    return took, max(files)


def test_the_trouble_of_some_accounts_delays_and_hides_none_of_the_many_others(tmp_path):
    asked, key_file = Asked(), tmp_path / "key"
    key_file.write_text(key("keyless"), encoding="utf-8")
    with fake_api() as (api, _):
        for _ in range(FINE_TUNES):
            api.world.add(status="completed")
        api.answer = asked.note
        hold(api)
        settings = {**agent_config(api), "accounts": accounts(api.url, key_file)}
        with Agent(tmp_path, **settings).process() as process:
            url = url_of(process)
            key_file.unlink()
            took, files = watched(url, process, asked)
            assert files < len(CIRCUIT_CLOSED) + 60, (
                "a connection for each poll under way, and no more"
            )
            counts = asked.of(*CIRCUIT_CLOSED)
            assert max(counts) - min(counts) <= 2, "one after another, they would drift apart"
            assert asked.of("refused") == [1], "it has ten times the time of the others"
            assert statistics.median(took) < 0.4, "the loop is free"
            until(lambda: in_trouble(url) == TROUBLES.keys())
            failures = shown(url, "cartesia_exporter_poll_failures_total")
            assert all(failures[trouble] for trouble in TROUBLES.items())
            counted = Counter[str]()
            for (account, *_), number in shown(url, "cartesia_fine_tunes").items():
                counted[account] += int(number)
            assert {name: counted[name] for name in CIRCUIT_CLOSED} == dict.fromkeys(
                CIRCUIT_CLOSED, FINE_TUNES
            )
            assert process.stop() == 0
