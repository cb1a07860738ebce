"""Failpoints: steps between a poll and a recorded delivery at which the agent kills itself.

`sitecustomize` wraps functions of the agent in its process. The failpoint that is armed is the
content of a file, so that one process can run undisturbed before it is killed.
"""

from pathlib import Path
from typing import Final

from tests.process.agent_process import injected

_CODE: Final = """
import functools, importlib, os, pathlib, signal

armed = pathlib.Path({armed!r})

def reached(failpoint):
    if armed.exists() and armed.read_text() == failpoint:
        armed.unlink()
        os.kill(os.getpid(), signal.SIGKILL)

def at(failpoint):
    return lambda *_: reached(failpoint)

def wrap(module, owner, name, before=lambda *_: None, after=lambda *_: None):
    owner = getattr(importlib.import_module(module), owner)
    real = getattr(owner, name)

    @functools.wraps(real)
    async def wrapper(*arguments, **named):
        before(*arguments)
        result = await real(*arguments, **named)
        after(*arguments)
        return result

    setattr(owner, name, wrapper)

def before_commit(accounts, result):
    if result.events:
        reached("before the poll commits")

def after_commit(accounts, result):
    if result.events:
        reached("after the poll has committed")

wrap("exporter.store.accounts", "Accounts", "commit", before_commit, after_commit)
outbox = "exporter.store.outbox", "Outbox"
wrap(*outbox, "create_messages", after=at("after the messages are created"))
wrap(*outbox, "claim", at("before the claim"), at("after the claim"))
wrap(*outbox, "split", at("before the parts are stored"), at("after the parts are stored"))
wrap(*outbox, "record", at("before the result is recorded"), at("after the result is recorded"))

posts = set()
steps = {{
    "send_request_headers.started": "before the request is sent",
    "send_request_body.started": "when half of the request is sent",
    "receive_response_headers.started": "before the answer",
    "receive_response_body.complete": "after the answer",
}}

def before_trace(progress, name, info):
    # Only the first step has the request; polls (GET) use the same function.
    step = name.partition(".")[2]
    if step == "send_request_headers.started" and info["request"].method == b"POST":
        posts.add(progress)
    if progress in posts and step in steps:
        reached(steps[step])

wrap("exporter.http_client", "_Progress", "trace", before_trace)
"""


class Failpoints:
    """Kills the processes that are started with ``env`` at the armed failpoint."""

    def __init__(self, folder: Path) -> None:
        self._armed = folder / "armed-failpoint"
        self.env = injected(folder, _CODE.format(armed=str(self._armed)))

    def arm(self, failpoint: str) -> None:
        """Kill the next process that reaches ``failpoint``; its restart is not killed."""
        replacement = self._armed.with_suffix(".new")
        replacement.write_text(failpoint, encoding="utf-8")
        replacement.replace(self._armed)
