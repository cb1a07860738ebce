"""The page is rendered where it changed, and ages by itself."""

import asyncio

import pytest

from exporter.exposition import page as page_module
from tests.core.sample_account import EVERYTHING
from tests.exposition.page_fixture import Prefetcher, names


@pytest.fixture
def desk():
    return Prefetcher()


def test_what_did_not_change_is_not_rendered_again(desk):
    desk.publish()
    first = desk.render()
    assert desk.render() is first
    desk.counter.inc()
    second = desk.render()
    assert second is not first
    assert second.text.plain[0] is first.text.plain[0]
    assert second.text.gzipped[0] is first.text.gzipped[0]
    assert b"cartesia_exporter_polls_total 1.0\n" in second.text.plain[1]


def test_data_series_are_rendered_again_only_when_one_of_them_changed(desk):
    desk.publish()
    first = desk.render()
    desk.publish(polled_at=EVERYTHING.polled_at + 60, up=False)
    second = desk.render()
    assert second.text.plain[0] is first.text.plain[0]
    assert b'cartesia_up{account="default"} 0.0\n' in second.text.plain[1]
    desk.publish(oldest={"training": 5.0})
    assert desk.render().text.plain[0] != first.text.plain[0]


def test_both_formats_have_the_same_data_series_and_openmetrics_alone_has_an_end(desk):
    desk.publish()
    found = desk.render()
    assert found.text.plain[0] is found.openmetrics.plain[0]
    assert b"".join(found.openmetrics.plain).count(b"\n# EOF\n") == 1
    assert b"".join(found.openmetrics.plain).endswith(b"\n# EOF\n")
    assert b"\n# EOF" not in b"".join(found.text.plain)


def test_figures_of_the_process_alone_are_renewed_once_a_second(desk):
    desk.publish()
    first = desk.render()
    desk.process.set(7)
    desk.now += 0.9
    assert desk.render() is first
    desk.now += 0.1
    assert b"process_open_fds 7.0\n" in desk.render().text.plain[1]


def test_data_series_disappear_and_come_back_without_a_poll_in_between(desk):
    desk.publish(stale_at=200.0)
    assert "cartesia_fine_tunes" in names(desk.render().text.plain[0])
    desk.now = 200.0
    gone = desk.render()
    assert names(gone.text.plain[0]) == set()
    assert b'cartesia_stale{account="default"} 1.0\n' in gone.text.plain[1]
    desk.publish(stale_at=500.0)
    assert "cartesia_fine_tunes" in names(desk.render().text.plain[0])


def test_one_account_that_is_too_old_takes_only_its_own_series_away(desk):
    desk.publish(account="old", stale_at=200.0)
    desk.publish(account="fresh")
    desk.now = 200.0
    data = desk.render().text.plain[0]
    assert b'account="old"' not in data
    assert b'account="fresh"' in data


def test_with_several_accounts_each_disappears_in_its_turn(desk):
    desk.publish(account="first", stale_at=200.0)
    desk.publish(account="second", stale_at=300.0)
    for desk.now, left in ((199.9, 2), (200.0, 1), (299.9, 1), (300.0, 0)):
        data = desk.render().text.plain[0]
        assert (b'account="first"' in data) + (b'account="second"' in data) == left


def running(desk: Prefetcher, test) -> None:
    """Run a test beside the part that renews the page."""

    async def run() -> None:
        stop = asyncio.Event()
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            group.create_task(desk.page.run(stop))
            try:
                await test()
            finally:
                stop.set()

    asyncio.run(run())


def test_the_page_is_renewed_by_itself(desk):
    async def test() -> None:
        first = await desk.page.newest()
        desk.counter.inc()
        while (newest := await desk.page.newest()) is first:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)
        assert b"cartesia_exporter_polls_total 1.0\n" in newest.text.plain[1]

    running(desk, test)


def test_it_is_looked_four_times_a_second_at_most_and_a_scrape_renders_nothing(desk, monkeypatch):
    assert page_module._TICK_SECONDS == 0.25
    monkeypatch.setattr(page_module, "_TICK_SECONDS", 3600.0)
    renders: list[int] = []
    render = desk.renderer.render

    def noted():
        renders.append(1)
        return render()

    monkeypatch.setattr(desk.renderer, "render", noted)

    async def test() -> None:
        shown = {id(await desk.page.newest()) for _ in range(3)}
        for _ in range(50):
            desk.counter.inc()
            shown.add(id(await desk.page.newest()))
        # One by the part, one for the first scrape, which did not wait for the part.
        assert len(renders) <= 2
        assert len(shown) <= 2

    running(desk, test)


def test_a_view_that_was_just_published_is_on_the_page(desk):
    async def test() -> None:
        for polled_at in range(1, 30):
            desk.publish(polled_at=polled_at)
            shown = await desk.page.newest()
            assert f" {polled_at}.0\n".encode() in shown.text.plain[1]

    running(desk, test)


def test_a_scrape_never_finds_what_is_too_old(desk, monkeypatch):
    monkeypatch.setattr(page_module, "_TICK_SECONDS", 3600.0)
    desk.publish(stale_at=200.0)

    async def test() -> None:
        desk.now = 199.9
        assert "cartesia_fine_tunes" in names((await desk.page.newest()).text.plain[0])
        desk.now = 200.0
        stale = await desk.page.newest()
        assert names(stale.text.plain[0]) == set()
        assert b'cartesia_stale{account="default"} 1.0\n' in stale.text.plain[1]
        assert await desk.page.newest() is stale

    running(desk, test)


def test_what_takes_long_to_look_over_is_looked_over_less_often():
    for taken, pause in ((0.0, 0.25), (0.027, 0.25), (0.1, 0.9), (60.0, 2.0)):
        assert page_module.pause_after(taken) == pytest.approx(pause)


def test_an_error_while_it_is_rendered_ends_the_part(desk):
    class Broken:
        def collect(self):
            raise ZeroDivisionError

    desk.registry._collector_to_names[Broken()] = []
    with pytest.raises(ExceptionGroup, match="unhandled errors") as caught:
        running(desk, lambda: asyncio.sleep(5))
    assert caught.group_contains(ZeroDivisionError)
