"""A process that has imported the command and forks for each start of it.

Imports take most of a start: 1 s of processor time on a slow machine, in hundreds of tests of what
an agent does afterwards. The start itself is tested with new interpreters.
"""

import asyncio
import gc
import json
import logging
import os
import runpy
import select
import signal
import socket
import sys
import tempfile
import threading
from contextlib import suppress
from importlib import import_module
from typing import Any

from tests.fakes.answers import answer
from tests.fakes.api import FakeApi, fine_tune
from tests.fakes.server import Peer, Server
from tests.process.forked import AFTER_IMPORTS
from tests.shared_compilation import shared_compilation

_LARGEST_REQUEST = 100_000
_IMPORTED_LATE = (
    "exporter.web.site",
    "psycopg",
    "rich.progress",
    "rich.table",
    "uvicorn.lifespan.off",
)
"""Modules that libraries and commands import when they first need them."""


def serve(listener: socket.socket) -> dict[str, Any] | None:
    """Fork for each request of a client: in the new process, return the request.

    A request is a JSON object with ``module``, ``arguments``, ``folder`` and ``environment``. It
    comes with the descriptors of standard input, output and error and of a socket, which is sent
    the id of the process and, when it has ended, its exit status. Returns None when the last client
    has closed its connection.
    """
    ended, on_signal = os.pipe()
    for descriptor in (ended, on_signal):
        os.set_blocking(descriptor, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(on_signal)
    watchers: dict[int, int] = {}
    clients = [listener.accept()[0]]
    while clients:
        sources: list[int | socket.socket] = [ended, listener, *clients]
        ready, _, _ = select.select(sources, [], [])
        if ended in ready:
            os.read(ended, 1000)
            _report_ended(watchers)
        if listener in ready:
            clients.append(listener.accept()[0])
        for client in [each for each in clients if each in ready]:
            text, descriptors, _, _ = socket.recv_fds(client, _LARGEST_REQUEST, 4)
            if not text:
                clients.remove(client)
                client.close()
            elif (process := os.fork()) == 0:
                for each in (listener, *clients):
                    each.detach()
                request: dict[str, Any] = json.loads(text)
                _become(request, descriptors[:3])
                return request
            else:
                *streams, watchers[process] = descriptors
                for stream in streams:
                    os.close(stream)
                _tell(watchers[process], process)
    return None


def _report_ended(watchers: dict[int, int]) -> None:
    while watchers:
        process, status = os.waitpid(-1, os.WNOHANG)
        if not process:
            return
        watcher = watchers.pop(process)
        _tell(watcher, os.waitstatus_to_exitcode(status))
        os.close(watcher)


def _tell(watcher: int, number: int) -> None:
    with suppress(OSError):  # nobody waits for the process
        os.write(watcher, str(number).encode())


def _become(request: dict[str, Any], streams: list[int]) -> None:
    """Take over what a new interpreter would have found."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    # The server's own may be a file: it seeks, and does not flush lines to a terminal.
    sys.stdout = os.fdopen(1, "w", errors=sys.stdout.errors, closefd=False)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))  # all but standard input, output and error
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv[1:] = request["arguments"]
    if AFTER_IMPORTS in os.environ:
        runpy.run_path(os.environ[AFTER_IMPORTS])


def _warm_up() -> None:
    """Run an agent until it has notified of a failure: SQLAlchemy compiles its statements once."""
    import structlog

    from exporter.agent import agent
    from exporter.config.models import Config

    async def run() -> None:
        stop, loop = asyncio.Event(), asyncio.get_running_loop()

        def notified(peer: Peer) -> None:
            answer()(peer)
            loop.call_soon_threadsafe(stop.set)

        with (
            tempfile.TemporaryDirectory() as folder,
            FakeApi([fine_tune("a", status="failed")]) as api,
            Server(notified) as server,
        ):
            config = Config.model_validate(
                {
                    "accounts": [{"api_key": "sk_car_warm", "base_url": api.base_url}],
                    "alerts": {"first_run": "alert", "group_wait": "0s"},
                    "receivers": [{"name": "hook", "type": "webhook", "url": server.base_url}],
                    "storage": {"path": f"{folder}/state.db"},
                }
            )
            config.set_secret_sources()
            async with asyncio.timeout(60):
                await agent.run(config, agent.RunOptions((("127.0.0.1", 0),)), stop)

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    asyncio.run(run())
    structlog.reset_defaults()
    gc.collect()  # a thread ends with the executor that it belongs to
    for thread in threading.enumerate():
        if thread is not threading.current_thread():
            thread.join(10)
    # A lock that another thread holds during a fork is never released in the new process.
    assert threading.active_count() == 1


def _run() -> None:
    from exporter.cli import commands, run  # noqa: F401 - the parent has few modules
    from exporter.imports import without_rich

    with without_rich():
        from exporter import http_client
        from exporter.agent import agent, reload  # noqa: F401
        from exporter.cli import main, process  # noqa: F401

    for name in _IMPORTED_LATE:
        import_module(name)
    http_client.load()
    with shared_compilation():
        _warm_up()
        gc.freeze()  # what is imported is shared with the processes
        with socket.socket(fileno=int(sys.argv[1])) as listener:
            request = serve(listener)
        if request is not None:
            runpy.run_module(request["module"], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _run()
