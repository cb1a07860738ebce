"""A Cartesia API and a receiver of messages that a test controls, on loopback."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from exporter.simulator.api import Simulation, create_app
from exporter.simulator.world import Population, World
from tests.process.agent_process import until
from tests.simulator.served_app import served


class Gate:
    """Holds requests while it is closed; it is open at first."""

    def __init__(self) -> None:
        self._open = threading.Event()
        self._open.set()
        self.waiting = 0

    def close(self) -> None:
        self._open.clear()

    def open(self) -> None:
        self._open.set()

    async def wait(self) -> None:
        self.waiting += 1
        try:
            while not self._open.is_set():  # noqa: ASYNC110 - set by another thread
                await asyncio.sleep(0.01)
        finally:
            self.waiting -= 1


@dataclass
class Api:
    """A simulated API; ``is_held`` selects the requests that wait at the gate.

    Those that ``holds_answer`` selects wait there with an answer of before. ``answer`` may return a
    response in place of the simulated one.
    """

    world: World = field(default_factory=lambda: World(Population(fine_tunes=0)))
    gate: Gate = field(default_factory=Gate)
    is_held: Callable[[Scope], bool] = lambda scope: True
    holds_answer: Callable[[Scope], bool] = lambda scope: False
    answer: Callable[[Request], Response | None] = lambda request: None
    url: str = ""
    request_count: int = 0

    def app(self) -> ASGIApp:
        simulated = create_app(Simulation(self.world))

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            self.request_count += 1
            if self.is_held(scope):
                await self.gate.wait()
            answer = self.answer(Request(scope)) or simulated
            is_late = self.holds_answer(scope)

            async def send_late(message: Message) -> None:
                await self.gate.wait()
                await send(message)

            await answer(scope, receive, send_late if is_late else send)

        return app


@dataclass(frozen=True)
class ReceivedRequest:
    """A request to a receiver, whether it was answered or not."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]


@dataclass
class Inbox:
    """A receiver: ``is_held`` selects the requests that wait at the gate for their answer."""

    gate: Gate = field(default_factory=Gate)
    is_held: Callable[[ReceivedRequest], bool] = lambda request: True
    answer: Callable[[ReceivedRequest], Response] = lambda _: PlainTextResponse("ok")
    url: str = ""
    requests: list[ReceivedRequest] = field(default_factory=list)

    def app(self) -> ASGIApp:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            http = Request(scope, receive)
            request = ReceivedRequest(http.url.path, dict(http.headers), await http.body())
            self.requests.append(request)
            if self.is_held(request):
                await self.gate.wait()
            await self.answer(request)(scope, receive, send)

        return app

    def wait_for(self, number: int, seconds: float = 45) -> list[ReceivedRequest]:
        """Wait for at least ``number`` requests, and return all."""
        until(lambda: len(self.requests) >= number, seconds)
        return self.requests


@contextlib.contextmanager
def fake_api(**world: Any) -> Iterator[tuple[Api, Inbox]]:
    """Serve an API and a receiver."""
    api, inbox = Api(**world), Inbox()
    with served(api.app()) as api.url, served(inbox.app()) as inbox.url:
        try:
            yield api, inbox
        finally:
            api.gate.open()
            inbox.gate.open()


def agent_config(api: Api, *receivers: dict[str, Any], **poll: Any) -> dict[str, Any]:
    """Return a configuration that sends each failure as soon as a poll has seen it."""
    account = {"name": "main", "api_key_env": "CARTESIA_API_KEY", "base_url": api.url}
    return {
        "accounts": [account],
        "poll": {"interval": "1s", **poll},
        "alerts": {"group_wait": "0s", "first_run": "silent"},
        "receivers": list(receivers),
    }


def webhook(inbox: Inbox, name: str = "ops", **settings: Any) -> dict[str, Any]:
    return {"name": name, "type": "webhook", "url": f"{inbox.url}/{name}", **settings}
