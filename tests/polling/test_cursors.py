"""Cursors and fine-tunes of the last listing survive a restart."""

from tests.polling.poller_fixture import FAILURES, listing, open_poller
from tests.store.sample_polls import fine_tune

FINE_TUNES = (fine_tune("a"), fine_tune("b", "completed"))


async def test_a_restart_gives_the_source_the_last_cursors_and_fine_tunes(tmp_path):
    path = tmp_path / "state.db"
    async with open_poller(path, listing(*FINE_TUNES, cursors=("a",))) as p:
        assert p.source.remembered == [()]
        await p.poller.poll()
        assert p.source.tracked == {}
    async with open_poller(path, listing(*FINE_TUNES)) as p:
        assert p.source.remembered == [("a",)]
        await p.poller.poll()
        assert [each.fine_tune for each in p.source.tracked.values()] == [*FINE_TUNES]


async def test_cursors_are_stored_only_when_they_change(tmp_path):
    path = tmp_path / "state.db"
    async with open_poller(path, listing(*FINE_TUNES, cursors=("a",))) as p:
        await p.poller.poll()
        await p.execute(
            "CREATE TRIGGER no BEFORE UPDATE ON cursors BEGIN SELECT RAISE(ABORT, 'no'); END"
        )
        await p.poller.poll()
        assert p.metric(FAILURES, reason="storage") == 0
        p.answer(listing(*FINE_TUNES, cursors=("b",)))
        await p.poller.poll()
        assert p.metric(FAILURES, reason="storage") == 1
        await p.execute("DROP TRIGGER no")
        await p.poller.poll()
    async with open_poller(path, listing(*FINE_TUNES)) as p:
        assert p.source.remembered == [("b",)]
