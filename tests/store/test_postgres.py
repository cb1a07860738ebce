"""The engine of PostgreSQL: its connections, passwords, timeouts and errors."""

import asyncio
import os
import signal
import sys
import threading
import time
from typing import Any

import psycopg
import pytest
from sqlalchemy import select, text

from exporter.store.accounts import Accounts
from exporter.store.database import Database
from exporter.store.engines import postgres
from exporter.store.errors import StoreError, StoreLostError, StoreRefusedError
from exporter.store.events import record_events
from exporter.store.location import PostgresLocation
from exporter.store.schema import events
from tests.fakes.relay import Cut, relay
from tests.fakes.secret import FakeSecret
from tests.postgres_server import AGENT, HOST, PostgresServer, location_of
from tests.store.raw_sql import count_rows, execute
from tests.store.sample_outbox import failure, queue
from tests.store.sample_polls import (
    KEY,
    commit_snapshot,
    fine_tune,
    poll_result,
    snapshot_of,
)

PASSWORD = "hunter2"


@pytest.fixture
def location(postgres: PostgresServer) -> PostgresLocation:
    """A new state in PostgreSQL."""
    return postgres.emptied()


@pytest.fixture
def new_location(postgres: PostgresServer) -> PostgresLocation:
    """A database without tables."""
    return location_of(postgres.url(postgres.new_database()))


async def open_briefly(location: PostgresLocation, *, init: bool = False) -> str:
    """Open and close a database; return the store's id."""
    async with Database(location, init=init) as database:
        return database.store_id


async def refusal(location: PostgresLocation, error: type[Exception] = StoreError) -> str:
    """Return the text of the error that opening a database raises."""
    with pytest.raises(error) as caught:
        await open_briefly(location)
    assert PASSWORD not in str(caught.value)
    return str(caught.value)


async def test_the_password_is_read_for_each_new_connection(postgres):
    url = postgres.url(postgres.emptied_database(), user=AGENT)
    password = FakeSecret("wrong")
    location = PostgresLocation(location_of(url).url, password)
    postgres.set_password(PASSWORD)
    assert "password authentication failed" in await refusal(location)
    password.value = PASSWORD
    async with Database(location) as database:
        postgres.set_password("another")
        password.value = "another"
        query = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{AGENT}'"
        assert len(postgres.execute(query)) == 1
        await database.run(database.try_to_write)
    password.value = None
    assert "cannot read /etc/cartesia/key" in await refusal(location)


@pytest.mark.parametrize(
    ("url", "error"),
    [
        (f"postgresql://{AGENT}:x{PASSWORD}@{{}}/postgres", "check the user in storage.url"),
        (f"postgresql://postgres:{PASSWORD}@{{}}/missing", '"missing" does not exist; create it'),
        (f"postgresql://nobody:{PASSWORD}@{{}}/postgres", "correct storage.url"),
        (f"postgresql://postgres:{PASSWORD}@127.0.0.1:1/x", "x at 127.0.0.1:1: Connection refused"),
        (f"postgresql://postgres:{PASSWORD}@[::1]:1/x", "x at [::1]:1: "),
    ],
)
async def test_an_error_names_the_database_and_what_to_do_but_no_password(postgres, url, error):
    location = location_of(url.format(f"127.0.0.1:{postgres.port}"))
    assert error in await refusal(location)


@pytest.mark.parametrize("url", ["postgresql://u:pass%zzhunter2@db/x", "postgresql://u:a?hunter2"])
async def test_an_invalid_url_is_refused_without_repeating_it(url):
    assert "%40 for @" in await refusal(location_of(url), StoreRefusedError)


async def test_another_host_needs_a_certificate_of_a_known_authority_for_its_name(postgres):
    def url(host: str = HOST, **more: Any) -> str:
        return server.url(database, host=host, hostaddr="127.0.0.1", **{"sslmode": "", **more})

    server: PostgresServer = postgres
    database = server.emptied_database()
    assert "sslrootcert=PATH" in await refusal(location_of(url()))
    await open_briefly(location_of(url(sslrootcert=postgres.authority)))
    mismatch = location_of(url("another.example", sslrootcert=postgres.authority))
    assert "does not match host name" in await refusal(mismatch)
    await open_briefly(location_of(url(sslmode="disable")))


async def test_of_several_hosts_the_one_that_can_be_written_is_used(postgres):
    database = postgres.emptied_database()
    hosts = f"127.0.0.1:1,127.0.0.1:{postgres.port}"
    location = location_of(f"postgresql://postgres@{hosts}/{database}")
    await open_briefly(location)
    postgres.execute(f"ALTER DATABASE {database} SET default_transaction_read_only = on")
    try:
        assert "session is read-only; give all hosts" in await refusal(location)
    finally:
        postgres.execute(f"ALTER DATABASE {database} RESET default_transaction_read_only")


async def test_without_psycopg_the_error_says_what_to_install(location, monkeypatch):
    monkeypatch.setitem(sys.modules, "exporter.store.engines.postgres", None)
    with pytest.raises(StoreRefusedError, match=r"pip install 'cartesia-exporter\[postgres\]'"):
        Database(location)


async def test_an_old_server_is_refused(location, monkeypatch):
    monkeypatch.setattr(postgres, "OLDEST_VERSION", 99)
    assert "99 or newer is needed" in await refusal(location, StoreRefusedError)


async def test_a_database_with_another_encoding_is_refused(postgres):
    name = postgres.new_database(
        "ENCODING 'LATIN1' LOCALE 'C' LOCALE_PROVIDER libc TEMPLATE template0"
    )
    text = await refusal(location_of(postgres.url(name)), StoreRefusedError)
    assert "has the encoding LATIN1" in text


async def test_tables_of_other_programs_do_not_matter_unless_their_names_are_ours(postgres):
    database = postgres.new_database()
    location = location_of(postgres.url(database))
    postgres.execute("CREATE TABLE users (id int)", database)
    await open_briefly(location)
    database = postgres.new_database()
    postgres.execute("CREATE TABLE events (id int)", database)
    location = location_of(postgres.url(database))
    assert "tables of another program" in await refusal(location, StoreRefusedError)
    postgres.execute("CREATE SCHEMA agent", database)
    postgres.execute(f"ALTER DATABASE {database} SET search_path = agent", database)
    await open_briefly(location)


async def test_a_user_without_rights_is_refused_with_what_to_do(postgres):
    database = postgres.new_database()
    postgres.execute("CREATE USER guest")
    try:
        location = location_of(postgres.url(database, user="guest"))
        assert "own the database" in await refusal(location, StoreRefusedError)
    finally:
        postgres.execute("DROP USER guest")


async def test_an_emptied_database_is_refused_unless_a_new_state_is_asked_for(location):
    async with Database(location) as database:
        before = database.store_id
        await execute(database, "DELETE FROM meta")
    assert "--storage.init" in await refusal(location, StoreRefusedError)
    assert await open_briefly(location, init=True) != before
    await open_briefly(location)


async def test_an_agent_waits_while_another_creates_the_tables(postgres):
    database = postgres.new_database()
    with psycopg.connect(postgres.url(database)) as connection:
        connection.execute("CREATE TABLE meta (name text)")
        opening = asyncio.create_task(open_briefly(location_of(postgres.url(database), lease=1.0)))
        waiting = "SELECT xact_start FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        attempts = set[Any]()
        while len(attempts) < 2:  # the first one was ended by its timeout
            attempts |= set(await asyncio.to_thread(postgres.execute, waiting, database))
            assert not opening.done()
        connection.rollback()
        assert await opening


async def test_agents_that_create_the_tables_at_the_same_time_have_one_state(new_location):
    found = await asyncio.gather(*(open_briefly(new_location) for _ in range(4)))
    assert len({*found}) == 1


@pytest.mark.parametrize(
    ("statement", "error"),
    [
        ("DELETE FROM meta", "was emptied"),
        ("UPDATE meta SET value = 'other' WHERE name = 'store_id'", "was replaced"),
        ("DROP TABLE meta", "lost its tables"),
    ],
)
async def test_a_state_that_is_gone_is_noticed(new_location, statement, error):
    async with Database(new_location) as database:
        await database.run(database.engine.verify)
        await execute(database, statement)
        with pytest.raises(StoreLostError, match=error):
            await database.run(database.engine.verify)
        assert database.lost is not None


async def test_an_agent_that_pauses_within_a_transaction_blocks_nobody(postgres):
    url = postgres.url(postgres.emptied_database())
    async with (
        Database(location_of(url, lease=2.0)) as paused,
        Database(location_of(url)) as other,
    ):

        def pause() -> None:
            with paused.write() as connection:
                record_events(connection, [(failure(1), ["slack"])])
                time.sleep(1.5)

        pausing = asyncio.create_task(paused.run(pause))
        await asyncio.sleep(0.2)
        await asyncio.gather(queue(other, [2], "slack"), return_exceptions=True)
        with pytest.raises(StoreError):
            await pausing
        await queue(other, [2], "slack")
        assert await execute(other, "SELECT id FROM events") == [("evt_2",)]
        await queue(paused, [3], "slack")


async def test_a_statement_does_not_take_longer_than_the_lease(postgres):
    location = location_of(postgres.url(postgres.emptied_database()), lease=2.0)
    async with Database(location) as database:

        def wait() -> None:
            with database.read() as connection:
                connection.execute(text("SELECT pg_sleep(20)"))

        with pytest.raises(StoreError, match="too slow or blocked"):
            await database.run(wait)


async def test_a_server_that_is_stopped_does_not_hold_a_call_for_ever(postgres):
    location = location_of(postgres.url(postgres.emptied_database()), lease=2.0)
    async with Database(location) as database:
        [[backend]] = await execute(database, "SELECT pg_backend_pid()")

        def stop() -> None:
            with database.read() as connection:
                os.kill(backend, signal.SIGSTOP)
                connection.execute(text("SELECT 1"))

        try:
            async with asyncio.timeout(10):
                with pytest.raises(StoreError, match="no answer from the server for 4 s"):
                    await database.run(stop)
            await database.run(database.try_to_write)  # on another connection
        finally:
            os.kill(backend, signal.SIGCONT)


async def test_events_are_committed_in_the_order_of_their_numbers(location):
    """A reader that has seen a number has seen all smaller ones."""
    entered, release = threading.Event(), threading.Event()
    async with Database(location) as database, Database(location) as other:

        def record_slowly() -> None:
            with database.write() as connection:
                record_events(connection, [(failure(1), ["slack"])])
                entered.set()
                release.wait(10)

        first = asyncio.create_task(database.run(record_slowly))
        await asyncio.to_thread(entered.wait, 10)
        second = asyncio.create_task(queue(other, [2], "slack"))
        await asyncio.sleep(0.2)
        assert await count_rows(other, "events") == 0
        release.set()
        await asyncio.gather(first, second)
        numbers = select(events.c.id).order_by(events.c.number)

        def read() -> list[str]:
            with other.read() as connection:
                return list(connection.scalars(numbers))

        assert await other.run(read) == ["evt_1", "evt_2"]


@pytest.mark.parametrize("answered", [True, False])
async def test_a_commit_without_an_answer_is_read_again_before_the_next(postgres, answered):
    name = postgres.emptied_database()
    with relay(postgres.port) as between:
        location = location_of(postgres.url(name, port=between.port))
        async with Database(location) as database:
            accounts = Accounts(database)
            state = await commit_snapshot(database, None, snapshot_of(fine_tune("a")))
            result = poll_result(state, snapshot_of(fine_tune("a", "failed")))
            between.cuts.append(Cut(b"COMMIT", b"INSERT INTO changes", answered))
            with pytest.raises(StoreError):
                await accounts.commit(result)
            assert await accounts.load(KEY) == (result.state if answered else state)
            await accounts.commit(result)
            assert await accounts.load(KEY) == result.state
            assert await count_rows(database, "events") == 1
            assert await count_rows(database, "deliveries") == 2


async def test_many_calls_fail_fast_while_the_server_is_gone_and_work_when_it_is_back(postgres):
    location = postgres.emptied()
    async with Database(location) as database:
        postgres.stop()
        try:
            started = time.monotonic()
            found = await asyncio.gather(
                *(database.run(database.try_to_write) for _ in range(200)), return_exceptions=True
            )
            assert time.monotonic() - started < 5
            assert {type(each) for each in found} == {StoreError}
            assert "Connection refused" in database.trouble
        finally:
            postgres.start()
        async with asyncio.timeout(10):
            while database.trouble:
                await asyncio.gather(database.run(database.try_to_write), return_exceptions=True)
