"""Environment, Hypothesis profiles and fixtures of all tests."""

import gc
import os
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import structlog
from hypothesis import HealthCheck, settings
from structlog.dev import ConsoleRenderer, plain_traceback

from tests.engines import ENGINES, SQLITE

if TYPE_CHECKING:
    from exporter.store.location import StoreLocation
    from tests.postgres_server import PostgresServer

# Without Hypothesis's own time limits, which a busy machine exceeds. `make soak` selects its
# profile with --hypothesis-profile.
for _profile, _examples in {"soak": 500, "quick": 25}.items():
    settings.register_profile(
        _profile,
        max_examples=_examples,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
settings.load_profile("quick")

_WAITING_FOLDERS = ("agent", "process", "replicas", "system")
_REMOVED_PREFIXES = ("CARTESIA_", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


def pytest_xdist_auto_num_workers() -> int:
    """Three workers for each processor: many tests wait for processes and timers."""
    return 3 * (os.cpu_count() or 1)


@pytest.hookimpl(trylast=True)  # after the selection
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have each worker begin with some of the long tests and end with short ones.

    Else all wait for the last one.
    """
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    long = [item for item in items if item.get_closest_marker("long")]
    rest = [item for item in items if not item.get_closest_marker("long")]
    waiting = [item for item in rest if item.path.parent.name in _WAITING_FOLDERS]
    others = iter(item for item in rest if item.path.parent.name not in _WAITING_FOLDERS)
    ordered: list[pytest.Item] = []
    for number in range(workers):
        begin = long[number::workers]
        some = waiting[len(waiting) * number // workers : len(waiting) * (number + 1) // workers]
        size = (len(items) - len(ordered)) // (workers - number)  # as worksteal divides them
        more = islice(others, max(0, size - len(begin) - len(some)))
        ordered += [*begin, *_mixed(some, list(more))]
    items[:] = ordered


def _mixed(waiting: list[pytest.Item], others: list[pytest.Item]) -> list[pytest.Item]:
    """Spread the modules whose tests wait for processes over the others, except the last ones."""
    places: dict[Path, float] = {}
    for group, end in ((waiting, 0.8), (others, 1.0)):
        for number, item in enumerate(group):
            places.setdefault(item.path, end * number / len(group))
    return sorted([*waiting, *others], key=lambda item: places[item.path])


def pytest_configure() -> None:
    """Collect the tests without searching them for garbage."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Do not search the collected tests for garbage: that took a twentieth of all time."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def anyio_backend():
    """Run async tests on asyncio, which the agent uses."""
    return "asyncio"


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    for name in list(os.environ):
        if name.upper().startswith(_REMOVED_PREFIXES):
            monkeypatch.delenv(name)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")


@pytest.fixture(scope="session", autouse=True)
def compiled_once() -> Iterator[None]:
    """Compile statements and tables once for all stores."""
    from tests.shared_compilation import shared_compilation

    with shared_compilation():
        yield


@pytest.fixture(scope="session", autouse=True)
def plain_tracebacks() -> None:
    """Log tracebacks without colours and variables, with which each takes 50 ms."""
    *others, _ = structlog.get_config()["processors"]
    plain = ConsoleRenderer(exception_formatter=plain_traceback)
    structlog.configure(processors=[*others, plain])


@pytest.fixture(scope="session")
def postgres() -> "Iterator[PostgresServer]":
    """A PostgreSQL server of this worker."""
    from tests.postgres_server import postgres_server

    with postgres_server() as server:
        yield server


@pytest.fixture(scope="session", params=ENGINES)
def new_state(request, tmp_path_factory) -> "Callable[[], StoreLocation]":
    """Returns the location of a new state; in PostgreSQL, where that of the one before was."""
    if request.param == SQLITE:
        return lambda: tmp_path_factory.mktemp("state") / "state.db"
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.emptied


@pytest.fixture
def unmeasured(monkeypatch):
    """Start the processes of a test without coverage, which takes a third of their start.

    For processes that are killed, or that run only code which other tests cover.
    """
    monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)
