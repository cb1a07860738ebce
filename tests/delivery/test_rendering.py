"""A renderer with a bug is the trouble of the one message that it cannot render."""

import pytest
from structlog.testing import capture_logs

from exporter.core.message import Message
from exporter.store.outbox import Backlog
from tests.delivery.delivery_fixture import BUSY, Bench, FakeReceiver, on_bench


class Broken(FakeReceiver):
    """Fails at whatever is about the fine-tune bad."""

    minimal_too = False

    def render(self, message: Message, *, minimal: bool = False) -> bytes:
        if b"bad" in super().render(message) and (self.minimal_too or not minimal):
            raise KeyError("a bug of the renderer")
        return super().render(message, minimal=minimal)


def test_what_cannot_be_rendered_goes_out_minimal_and_the_bug_is_logged(tmp_path):
    async def test(b: Bench) -> None:
        await b.fail("bad", "good")
        with capture_logs() as logs:
            await b.settle()
        assert sorted(b.receiver.bodies) == ["full good", "minimal bad"]
        assert await b.outbox.backlog() == Backlog(0, 0)
        assert b.failed("payload") == 1
        assert b.metric("cartesia_exporter_notifications_total") == 2
        [bug] = [line for line in logs if line.get("exc_info")]
        assert bug["log_level"] == "error"

    on_bench(tmp_path / "state.db", test, Broken())


def test_what_cannot_be_rendered_at_all_is_dead_and_holds_up_nobody(tmp_path):
    async def test(b: Bench) -> None:
        await b.fail("bad", "good", "better")
        await b.settle()
        assert b.receiver.bodies == ["full good", "full better"]
        assert await b.outbox.backlog() == Backlog(0, 1)

    receiver = Broken()
    receiver.minimal_too = True
    on_bench(tmp_path / "state.db", test, receiver)


def test_a_renderers_bug_is_no_news_of_the_receiver(tmp_path):
    async def test(b: Bench) -> None:
        await b.fail("good")
        await b.turns(1)
        await b.fail("bad")
        b.clock.now += await b.deliverer.deliver_due()
        await b.deliverer.deliver_due()
        await b.turns(1)
        assert await b.deliverer.deliver_due() == pytest.approx(2)  # the second failure in a row

    receiver = Broken()
    receiver.answers.extend([BUSY, BUSY])
    on_bench(tmp_path / "state.db", test, receiver)


def test_a_digest_that_cannot_be_rendered_goes_out_minimal(tmp_path):
    async def test(b: Bench) -> None:
        await b.fail("bad", "b", "c", "d", "e", "f")
        await b.settle()
        assert b.receiver.bodies == ["minimal bad b c d e f"]
        assert await b.outbox.backlog() == Backlog(0, 0)

    on_bench(tmp_path / "state.db", test, Broken())
