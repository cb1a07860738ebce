"""After a restart the source knows what the last poll knew, and reads side by side at once."""

import asyncio

from tests.polling.poller_fixture import FAILURES, Bench, bench, listing, on_bench
from tests.store.sample_polls import fine_tune

KNOWN = (fine_tune("a"), fine_tune("b", "completed"))


def test_a_restart_gives_the_source_the_cursors_and_the_fine_tunes_of_the_last_poll(tmp_path):
    path = tmp_path / "state.db"

    async def test(b: Bench) -> None:
        assert b.source.remembered == [()]
        await b.poller.poll()
        assert b.source.known == {}

    async def again(b: Bench) -> None:
        assert b.source.remembered == [("a",)]
        await b.poller.poll()
        assert [each.fine_tune for each in b.source.known.values()] == [*KNOWN]

    on_bench(path, test, listing(*KNOWN, cursors=("a",)))
    on_bench(path, again, listing(*KNOWN))


def test_cursors_are_written_when_they_change_and_only_then(tmp_path):
    path = tmp_path / "state.db"

    async def run() -> None:
        async with bench(path, listing(*KNOWN, cursors=("a",))) as b:
            await b.poller.poll()
            await b.execute(
                "CREATE TRIGGER no BEFORE UPDATE ON cursors BEGIN SELECT RAISE(ABORT, 'no'); END"
            )
            await b.poller.poll()
            assert b.metric(FAILURES, reason="storage") == 0
            b.then(listing(*KNOWN, cursors=("b",)))
            await b.poller.poll()
            assert b.metric(FAILURES, reason="storage") == 1
            await b.execute("DROP TRIGGER no")
            await b.poller.poll()
        async with bench(path, listing(*KNOWN)) as b:
            assert b.source.remembered == [("b",)]

    asyncio.run(run())
