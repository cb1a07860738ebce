"""The awake clock: it counts while the agent runs, whatever the wall clock and the process do."""

import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.store.awake import read_awake
from exporter.store.database import Database
from exporter.store.errors import StoreError
from tests.store.raw_sqlite import query_file


class Monotonic:
    """The monotonic clock of one process: it begins at any value."""

    def __init__(self, value: float) -> None:
        self.value = value

    def __call__(self) -> float:
        return self.value


@asynccontextmanager
async def opened(path: Path, monotonic: Monotonic) -> AsyncIterator[Database]:
    async with Database(path, monotonic=monotonic) as database:
        yield database


def stored(path: Path) -> float:
    [(seconds,)] = query_file(path, "SELECT seconds FROM awake_clock")
    return float(seconds)


async def test_the_clock_begins_at_zero_and_counts_monotonic_seconds(tmp_path):
    monotonic = Monotonic(5000.0)
    async with opened(tmp_path / "state.db", monotonic) as database:
        assert database.awake.now() == 0
        monotonic.value += 12.5
        assert database.awake.now() == 12.5


async def test_each_write_stores_the_clock_and_sees_what_it_stores(tmp_path):
    monotonic, path = Monotonic(5000.0), tmp_path / "state.db"
    async with opened(path, monotonic) as database:

        def write() -> float:
            with database.write() as connection:
                return read_awake(connection)

        monotonic.value += 7
        assert stored(path) == 0
        assert await database.run(write) == stored(path) == 7


async def test_a_write_that_fails_does_not_store_the_clock_and_does_not_stop_it(tmp_path):
    monotonic, path = Monotonic(0.0), tmp_path / "state.db"
    async with opened(path, monotonic) as database:
        monotonic.value += 7

        def fail() -> None:
            with database.write() as connection:
                connection.exec_driver_sql("INSERT INTO nowhere VALUES (1)")

        with pytest.raises(StoreError):
            await database.run(fail)
        assert (stored(path), database.awake.now()) == (0, 7)


@given(st.lists(st.tuples(st.floats(0, 1e9), st.floats(0, 1e7)), max_size=8))
async def test_the_clock_continues_over_restarts_and_ignores_the_time_between(
    tmp_path_factory, processes
):
    """`processes` are the value of the monotonic clock at each start, and the seconds it ran."""
    path, total = tmp_path_factory.mktemp("awake") / "state.db", 0.0
    for start, seconds in processes:
        monotonic = Monotonic(start)
        async with opened(path, monotonic) as database:
            assert database.awake.now() == pytest.approx(total, abs=1e-3)
            monotonic.value += seconds
        total += seconds
        assert stored(path) == pytest.approx(total, abs=1e-3)


async def test_a_command_beside_the_agent_reads_the_clock_and_never_changes_it(tmp_path):
    monotonic, path = Monotonic(100.0), tmp_path / "state.db"
    async with opened(path, monotonic) as database:
        monotonic.value += 40
        await database.run(database.try_to_write)
        async with Database(path, exclusive=False, monotonic=lambda: 9e9) as command:
            assert not command.awake.started

            def write() -> float:
                with command.write() as connection:
                    return read_awake(connection)

            assert await command.run(write) == 40
        assert stored(path) == 40


KILLED = """
import asyncio, sys, time
from pathlib import Path
from exporter.store.database import Database

async def main():
    async with Database(Path(sys.argv[1])) as database:
        await asyncio.sleep(0.2)
        await database.run(database.try_to_write)
        print("written", flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""


def test_a_process_that_is_killed_loses_only_what_passed_since_its_last_write(tmp_path):
    path, total = tmp_path / "state.db", 0.0
    for _ in range(2):
        command = [sys.executable, "-c", KILLED, str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "written\n"
            process.send_signal(signal.SIGKILL)
        assert stored(path) >= total + 0.2
        total = stored(path)
