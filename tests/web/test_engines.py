"""Pages and API answer the same over a state file and over its copy in PostgreSQL."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any
from urllib.parse import quote

import pytest

from exporter.core.retry import Outcome
from exporter.store.copying import copy_state
from exporter.store.database import Database, open_engine
from exporter.store.fine_tunes import SORTS
from exporter.web.query import DELIVERY_STATES, EVENT_WORDS
from tests.postgres_server import location_of
from tests.web.stored_pages import NOW, StoredPages, fine_tune, stored_pages

NAMES = ("Ada", "ada", "Äda", "a b", "a_b", "a%b", "Zed", "zed", "", "\U0001f3a4", "10", "9", "é")
ACCOUNTS = ["main", "Main", "Zulu", "älter", "a-b"]
STATUSES = ("training", "failed", "completed", "created", "odd one")


async def fill(pages: StoredPages) -> None:
    """Store fine-tunes whose texts sort differently in most languages, and what follows of them."""
    for turn in range(len(STATUSES)):
        for account in ACCOUNTS:
            await pages.poll(
                *(
                    fine_tune(
                        f"{name}-{number}",
                        STATUSES[(turn + number) % len(STATUSES)],
                        name=name,
                        model_id=f"sonic-{name}",
                        dataset=NAMES[number % 5],
                    )
                    for number, name in enumerate(NAMES)
                ),
                at=NOW - 7200 + 600 * turn,
                account=account,
            )
    for number in range(6):
        outcome = (Outcome.DELIVERED, Outcome.TRANSIENT)[number % 2]
        await pages.attempt("slack", f"answer {number}", outcome, NOW - 60 + number)
    await pages.digest("ops", NOW - 30)
    await pages.mute(match={"dataset": "Ada"}, reason="Ä")
    for account in ACCOUNTS[:2]:
        await pages.poll(at=NOW - 20, account=account)
        await pages.poll(at=NOW - 10, account=account)


@pytest.fixture(scope="module")
async def both(tmp_path_factory, postgres) -> AsyncIterator[tuple[StoredPages, StoredPages]]:
    """The pages over SQLite and over PostgreSQL."""
    folder = tmp_path_factory.mktemp("engines")
    location = location_of(postgres.url(postgres.new_database()))
    async with stored_pages(folder, accounts=ACCOUNTS) as filled:
        await fill(filled)
    copy_state(open_engine(folder / "state.db"), open_engine(location))
    async with AsyncExitStack() as stack:
        pages = []
        for each in (folder / "state.db", location):
            database = await stack.enter_async_context(Database(each))
            reader = await stack.enter_async_context(database.reader())
            fields: dict[str, Any] = {"accounts": ACCOUNTS, "statuses": filled.statuses}
            pages.append(StoredPages(database, reader, **fields))
        yield pages[0], pages[1]


def lists() -> list[str]:
    texts = ["a", "A", "ä", "%", "_", "\U0001f3a4", "10"]
    statuses = ["failed", "training", "odd one", "stuck", "removed", "unknown"]
    return [
        *(f"fine-tunes?sort={each}" for each in SORTS),
        *(f"fine-tunes?q={quote(each)}&sort=name" for each in texts),
        *(f"fine-tunes?status={quote(each)}" for each in statuses),
        *(f"fine-tunes?account={quote(each)}" for each in ACCOUNTS),
        "fine-tunes?dataset=ada&model_id=sonic-Ada",
        "fine-tunes?since=1h",
        "events",
        *(f"events?type={each}" for each in EVENT_WORDS),
        *(f"events?q={quote(each)}" for each in texts),
        "events?status=failed&account=Main&since=2h",
        "events?fine_tune=Ada-0",
        "events?fine_tune=a",
        *(f"deliveries?state={each}" for each in DELIVERY_STATES),
        "deliveries?receiver=slack",
        "accounts",
        "receivers",
        "mutes",
    ]


@pytest.mark.parametrize("path", lists())
async def test_every_page_of_a_list_is_the_same(both, path):
    sqlite, postgres = both
    first = following = f"/{path}{'&' if '?' in path else '?'}limit=7"
    found = 0
    while True:
        answer = await sqlite.json(following)
        assert await postgres.json(following) == answer, following
        found += len(answer["data"])
        if not answer["has_more"] or found > 200:
            break
        last = answer["data"][-1]
        following = f"{first}&starting_after={quote(last['id'])}"
        if path.startswith("fine-tunes"):
            following += f"&after_account={quote(last['account'])}"


@pytest.mark.parametrize(
    "path",
    [
        *(
            f"/api/v1/fine-tunes?{name}=a%00"
            for name in ("q", "account", "model_id", "dataset", "status", "starting_after")
        ),
        *(
            f"/api/v1/events?{name}=a%00"
            for name in ("q", "account", "fine_tune", "receiver", "status", "starting_after")
        ),
        "/api/v1/deliveries?starting_after=a%00:slack",
        "/api/v1/fine-tunes/main/a%00",
        "/fine-tunes/main/a%00",
        "/fine-tunes/a%00/a",
        "/fine-tunes?q=a%00",
        "/notifications?receiver=a%00",
    ],
)
async def test_what_postgresql_cannot_store_is_not_found(both, path):
    answers = [await each.get(path) for each in both]
    assert answers[0].status_code in {200, 400, 404}, answers[0].text
    assert [each.status_code for each in answers] == [answers[0].status_code] * 2
    assert answers[1].text == answers[0].text


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/?range=30d",
        "/fine-tunes?sort=account",
        "/fine-tunes?status=failed",
        "/fine-tunes/Main/ada-1",
        "/fine-tunes/Zulu/9-11",
        "/notifications",
        "/notifications?q=ada",
        "/api/v1/status",
        "/api/v1/fine-tunes/main/Zed-6",
    ],
)
async def test_every_kind_of_page_is_the_same(both, path):
    sqlite, postgres = both
    expected = await sqlite.get(path)
    assert expected.status_code == 200
    assert (await postgres.get(path)).text == expected.text


async def test_a_new_mute_matches_as_many_fine_tunes(both):
    sqlite, postgres = both
    [mute] = (await sqlite.json("/mutes"))["data"]
    path = f"/notifications?added={mute['id']}"
    expected = (await sqlite.get(path)).text
    assert "of the present fine-tunes match" in expected
    assert (await postgres.get(path)).text == expected
