"""What the agent talks to, under a test's control: a Cartesia API and a receiver of messages."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from exporter.simulator.api import Simulation, create_app
from exporter.simulator.world import Population, World
from tests.process.agent_process import until
from tests.simulator.served_app import served


class Gate:
    """What is held behind it waits, without holding up the rest; open at first."""

    def __init__(self) -> None:
        self._open = threading.Event()
        self._open.set()
        self.waiting = 0

    def close(self) -> None:
        self._open.clear()

    def open(self) -> None:
        self._open.set()

    async def passed(self) -> None:
        self.waiting += 1
        try:
            while not self._open.is_set():  # noqa: ASYNC110 - another thread opens it
                await asyncio.sleep(0.01)
        finally:
            self.waiting -= 1


@dataclass
class Api:
    """A simulated API whose pages can be held, from the second one on, or answered otherwise."""

    world: World = field(default_factory=lambda: World(Population(fine_tunes=0)))
    gate: Gate = field(default_factory=Gate)
    held: Callable[[Scope], bool] = lambda scope: True
    answer: Callable[[Request], Response | None] = lambda request: None
    url: str = ""
    asked: int = 0

    def app(self) -> ASGIApp:
        inner = create_app(Simulation(self.world))

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            self.asked += 1
            if self.held(scope):
                await self.gate.passed()
            answer = self.answer(Request(scope)) or inner
            await answer(scope, receive, send)

        return app


@dataclass(frozen=True)
class Arrived:
    """One request that a receiver got, also one that it never answered."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]


@dataclass
class Inbox:
    """Takes every message, and answers it when the gate is open."""

    gate: Gate = field(default_factory=Gate)
    held: Callable[[Arrived], bool] = lambda arrived: True
    answer: Callable[[Arrived], Response] = lambda _: PlainTextResponse("ok")
    url: str = ""
    arrived: list[Arrived] = field(default_factory=list)
    answered: list[Arrived] = field(default_factory=list)

    def app(self) -> ASGIApp:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            request = Request(scope, receive)
            got = Arrived(request.url.path, dict(request.headers), await request.body())
            self.arrived.append(got)
            if self.held(got):
                await self.gate.passed()
            await self.answer(got)(scope, receive, send)
            self.answered.append(got)

        return app

    def got(self, number: int, seconds: float = 20) -> list[Arrived]:
        """Wait until so many messages have arrived, and return all."""
        until(lambda: len(self.arrived) >= number, seconds)
        return self.arrived


@contextlib.contextmanager
def cloud(**world: Any) -> Iterator[tuple[Api, Inbox]]:
    """Serve an API and an inbox on loopback."""
    api, inbox = Api(**world), Inbox()
    with served(api.app()) as api.url, served(inbox.app()) as inbox.url:
        try:
            yield api, inbox
        finally:
            api.gate.open()
            inbox.gate.open()


def watching(api: Api, *receivers: dict[str, Any], **poll: Any) -> dict[str, Any]:
    """The configuration of an agent that tells each failure as soon as it sees it."""
    account = {"name": "main", "api_key_env": "CARTESIA_API_KEY", "base_url": api.url}
    return {
        "accounts": [account],
        "poll": {"interval": "1s", **poll},
        "alerts": {"group_wait": "0s", "first_run": "silent"},
        "receivers": list(receivers),
    }


def webhook(inbox: Inbox, name: str = "ops", **more: Any) -> dict[str, Any]:
    return {"name": name, "type": "webhook", "url": f"{inbox.url}/{name}", **more}
