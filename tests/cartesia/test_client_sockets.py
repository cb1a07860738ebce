"""The client over real sockets: broken, slow, oversized and long lists."""

import json
import socket
import time

import pytest

from exporter.cartesia import fetch
from exporter.simulator.api import Faults, Simulation, create_app
from exporter.simulator.world import Population, World
from tests.cartesia.client_fixture import KEY, REAL_CLOCK, ClientFixture
from tests.fakes.answers import (
    answer,
    as_json,
    chunked,
    drips,
    gzip_bomb,
    gzipped,
    head,
    redirect,
    sends,
    sends_then_hangs_up,
    sends_then_resets,
    silence,
    zeros,
)
from tests.fakes.api import FakeApi, fine_tune, page, problem
from tests.fakes.certificates import authority, server_context
from tests.fakes.secret import FakeSecret
from tests.simulator.served_app import served

PAGE = b'{"data":[{"id":"a"}],"has_more":false}'


@pytest.fixture
def fake_api():
    with FakeApi([fine_tune("a")]) as server:
        yield server


async def test_a_list_is_read_over_one_connection(fake_api, clock):
    fake_api.fine_tunes = [fine_tune(f"ft_{number}") for number in range(250)]
    listing = await ClientFixture(clock, fake_api.base_url).poll()
    assert list(listing.fine_tunes) == [item["id"] for item in fake_api.fine_tunes]
    assert [request.target for request in fake_api.requests] == [
        "/fine-tunes/?limit=100",
        "/fine-tunes/?limit=100&starting_after=ft_99",
        "/fine-tunes/?limit=100&starting_after=ft_199",
    ]
    assert {request.headers["authorization"] for request in fake_api.requests} == {f"Bearer {KEY}"}
    assert fake_api.connections == 1


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        pytest.param(
            sends_then_hangs_up(head(200, content_length=99) + PAGE),
            "protocol",
            id="truncated body",
        ),
        pytest.param(
            sends_then_resets(head(200, content_length=99) + PAGE),
            "connect",
            id="reset in the body",
        ),
        pytest.param(chunked([PAGE], complete=False), "protocol", id="without the last chunk"),
        pytest.param(
            answer(200, gzipped(PAGE)[:-9], content_encoding="gzip"),
            "protocol",
            id="truncated gzip",
        ),
        pytest.param(answer(200, PAGE, content_encoding="gzip"), "protocol", id="no gzip at all"),
        pytest.param(answer(200, PAGE, content_encoding="br"), "protocol", id="not asked for"),
        pytest.param(sends_then_hangs_up(b"SSH-2.0-X\r\n\r\n"), "protocol", id="not HTTP"),
        pytest.param(as_json(problem(503), 503), "server_error", id="a server error"),
    ],
)
@pytest.mark.parametrize("cursor", [None, "ft_99"], ids=["the first page", "a continuation"])
async def test_a_broken_page_is_requested_again(fake_api, clock, fault, reason, cursor):
    fake_api.fine_tunes = [fine_tune(f"ft_{number}") for number in range(150)]
    if cursor is not None:
        fake_api.then(as_json(page(fake_api.fine_tunes[:100], has_more=True)))
    fake_api.then(fault)
    fixture = ClientFixture(clock, fake_api.base_url)
    assert len(await fixture.poll_ids()) == 150
    assert fixture.failures == {reason: 1}
    assert fixture.retries == 1
    assert [request.query.get("starting_after") for request in fake_api.requests].count(cursor) == 2


@pytest.mark.parametrize("connection", ["keep-alive", "close"])
async def test_damaged_texts_and_odd_encodings_do_not_fail_a_poll(fake_api, clock, connection):
    name = "Zoë, support line".encode("latin-1") + b"\x00\x1b[0m\xe2\x82"
    first = b'{"data":[{"id":"a","name":"%b","status":"failed"}],"has_more":true}' % name
    padded = gzipped(b'{"data":null,"has_more":false}') + bytes(512)
    fake_api.then(answer(203, first, content_encoding="utf-8", connection=connection))
    fake_api.then(answer(200, padded, content_encoding="gzip"))
    fixture = ClientFixture(clock, fake_api.base_url)
    (fine_tune,) = (await fixture.poll()).fine_tunes.values()
    assert (fine_tune.id, fine_tune.status) == ("a", "failed")
    assert fine_tune.name == "Zo\ufffd, support line\ufffd\ufffd[0m\ufffd\ufffd"
    assert fixture.failures == {}


@pytest.mark.parametrize(
    ("lost", "reason"),
    [
        (sends_then_hangs_up(), "protocol"),
        (sends_then_resets(), "connect"),
        (sends_then_hangs_up(b"HTTP/1.1 200 "), "protocol"),
    ],
    ids=["hung up", "reset", "truncated status line"],
)
async def test_a_connection_lost_without_an_answer_is_a_failure_only_if_it_was_new(
    fake_api, clock, lost, reason
):
    fake_api.fine_tunes = [fine_tune(f"ft_{number}") for number in range(150)]
    first = as_json(page(fake_api.fine_tunes[:100], has_more=True))
    reused = ClientFixture(clock, fake_api.base_url)
    fake_api.then(first, lost)
    assert len(await reused.poll_ids()) == 150
    assert (reused.failures, reused.retries, clock.slept) == ({}, 0, [])
    new = ClientFixture(clock, fake_api.base_url)
    fake_api.then(lost)
    assert len(await new.poll_ids()) == 150
    assert (new.failures, new.retries) == ({reason: 1}, 1)


async def test_a_server_that_drops_every_second_request_of_a_connection_delays_nothing(
    fake_api, clock
):
    fake_api.fine_tunes = [fine_tune(f"ft_{number}") for number in range(1200)]
    seen: dict[int, int] = {}

    def drop_every_second(peer):
        number = peer.request.connection
        seen[number] = seen.get(number, 0) + 1
        if seen[number] == 2:
            peer.hang_up()
        fake_api._list(peer)

    fake_api.otherwise = drop_every_second
    fixture = ClientFixture(clock, fake_api.base_url)
    assert len(await fixture.poll_ids()) == 1200
    assert (fixture.failures, clock.slept) == ({}, [])
    assert len(fake_api.requests) == 12 + 11


async def test_a_page_that_stays_broken_fails_the_listing_after_five_attempts(fake_api, clock):
    fake_api.then(as_json(page([fine_tune("b")], has_more=True)))
    fake_api.otherwise = sends_then_hangs_up(head(200, content_length=99) + PAGE)
    fixture = ClientFixture(clock, fake_api.base_url)
    assert (await fixture.poll_error()).reason == "protocol"
    assert len(fake_api.requests) == 1 + 5


async def test_a_surplus_answer_is_not_taken_for_the_next_listing(fake_api, clock):
    fake_api.fine_tunes = [fine_tune("a"), fine_tune("b")]
    last = json.dumps(page(fake_api.fine_tunes[1:], has_more=False)).encode()
    message = head(200, content_length=len(last)) + last
    fake_api.then(as_json(page(fake_api.fine_tunes[:1], has_more=True)))
    fake_api.then(sends(message + message))
    fixture = ClientFixture(clock, fake_api.base_url)
    assert await fixture.poll_ids() == ["a", "b"]
    assert await fixture.poll_ids() == ["a", "b"]


SURPLUS = b'{"data":[],"has_more":false}'


@pytest.mark.parametrize(
    ("status", "body", "headers"),
    [
        pytest.param(200, b'{"data":[{"id":"a"}],"has_more":true}', {}, id="after a page"),
        pytest.param(503, b"", {}, id="after an error"),
        pytest.param(307, b"", {"location": "/fine-tunes/?limit=100"}, id="after a redirect"),
    ],
)
async def test_a_surplus_answer_is_not_taken_for_the_next_page(
    fake_api, clock, status, body, headers
):
    """A surplus empty last page would look like the removal of all fine-tunes after it."""
    asked_for = head(status, content_length=len(body), **headers) + body
    fake_api.fine_tunes = [fine_tune("a"), fine_tune("b")]
    fake_api.then(sends(asked_for + head(200, content_length=len(SURPLUS)) + SURPLUS))
    assert await ClientFixture(clock, fake_api.base_url).poll_ids() == ["a", "b"]


@pytest.mark.parametrize(
    "other", [answer(503), redirect("/fine-tunes/?limit=100")], ids=["an error", "a redirect"]
)
async def test_after_any_answer_but_a_page_a_new_connection_is_used(fake_api, clock, other):
    """A surplus answer that arrives a moment later cannot be told from the right one."""
    fake_api.then(other)
    assert await ClientFixture(clock, fake_api.base_url).poll_ids() == ["a"]
    assert [request.connection for request in fake_api.requests] == [1, 2]


async def test_an_endless_list_is_not_read_forever(fake_api, clock, monkeypatch):
    monkeypatch.setattr("exporter.cartesia.prefetch._MAX_BYTES", 20_000)
    for number in range(1000):
        fake_api.then(as_json(page([fine_tune(f"endless{number}")], has_more=True)))
    error = await ClientFixture(clock, fake_api.base_url).poll_error()
    assert error.reason == "too_large"
    assert len(fake_api.requests) < 1000


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(chunked(zeros(64)), id="64 MB"),
        pytest.param(answer(200, gzip_bomb(64), content_encoding="gzip"), id="64 MB in 64 KB"),
    ],
)
async def test_a_page_above_8_mib_fails_at_once(fake_api, clock, sent):
    fake_api.otherwise = sent
    fixture = ClientFixture(clock, fake_api.base_url)
    error = await fixture.poll_error()
    assert (error.reason, str(error)) == ("too_large", "a page is larger than 8388608 bytes")
    assert len(fake_api.requests) == 1
    assert fake_api.bytes_sent < 32 * 2**20


async def test_a_page_of_8_mib_is_read(fake_api, clock):
    fake_api.then(answer(200, PAGE + b" " * (8 * 2**20 - len(PAGE))))
    assert await ClientFixture(clock, fake_api.base_url).poll_ids() == ["a"]


@pytest.mark.parametrize(
    "slow",
    [
        pytest.param(silence, id="no answer"),
        pytest.param(drips(b"HTTP/1.1 200 OK\r\nX: "), id="headers that never end"),
        pytest.param(drips(head(200, content_length=10**6)), id="a body that drips"),
        pytest.param(drips(head(200, transfer_encoding="chunked"), b"1\r\n \r\n"), id="in chunks"),
    ],
)
async def test_a_slow_answer_is_cancelled_at_the_polls_deadline(fake_api, slow):
    fake_api.otherwise = slow
    fixture = ClientFixture(REAL_CLOCK, fake_api.base_url)
    started = time.monotonic()
    error = await fixture.poll_error(seconds=0.3)
    assert 0.3 <= time.monotonic() - started < 5
    assert error.reason == "timeout"
    assert "poll.timeout" in str(error)
    assert len(fake_api.requests) == 1


async def test_the_timeout_of_a_retry_at_the_deadline_does_not_hide_the_error(fake_api):
    """Shortly before the deadline, the time-out of a retry replaced the 503 in the error."""
    fake_api.then(answer(503), silence)
    fixture = ClientFixture(REAL_CLOCK, fake_api.base_url)
    assert (await fixture.poll_error(seconds=0.3)).reason == "server_error"
    assert fixture.failures == {"server_error": 1, "timeout": 1}


async def test_one_hung_request_leaves_time_for_another(fake_api, monkeypatch):
    monkeypatch.setattr(fetch, "_REQUEST_SECONDS", 1.0)
    fake_api.then(drips(head(200, content_length=10**6)))
    fixture = ClientFixture(REAL_CLOCK, fake_api.base_url)
    assert await fixture.poll_ids(seconds=30) == ["a"]
    assert fixture.failures == {"timeout": 1}


async def test_an_endless_list_of_quick_pages_ends_at_the_deadline(fake_api):
    """The list has no end, and its pages do not repeat."""
    numbers = iter(range(10**9))

    def endless(peer):
        peer.wait(0.01)
        as_json(page([fine_tune(f"ft_{next(numbers)}")], has_more=True))(peer)

    fake_api.otherwise = endless
    error = await ClientFixture(REAL_CLOCK, fake_api.base_url).poll_error(seconds=2)
    assert error.reason == "timeout"
    assert len(fake_api.requests) > 1


async def test_a_redirect_to_another_port_of_this_machine_is_not_followed(fake_api, clock):
    with FakeApi() as other:
        fake_api.then(redirect(f"{other.base_url}/fine-tunes/"))
        assert (await ClientFixture(clock, fake_api.base_url).poll_error()).reason == "redirect"
        assert (other.connections, other.requests) == (0, [])


async def test_a_redirect_to_the_path_without_the_slash_is_followed(fake_api, clock):
    fake_api.then(redirect("/fine-tunes?limit=100"))
    assert await ClientFixture(clock, fake_api.base_url).poll_ids() == ["a"]
    assert [request.path for request in fake_api.requests] == ["/fine-tunes/", "/fine-tunes"]


async def test_an_unreachable_api_is_tried_five_times(fake_api, clock):
    fixture = ClientFixture(clock, "http://127.0.0.1:1")
    error = await fixture.poll_error()
    assert (error.reason, str(error)) == (
        "connect",
        "no connection to 127.0.0.1:1: Connection refused",
    )
    assert fixture.failures == {"connect": 5}
    assert fixture.codes == {}


async def test_a_refused_certificate_is_not_retried(clock, tmp_path):
    issuer, ca_file = authority(tmp_path)
    with FakeApi([fine_tune("a")], server_context(issuer, "127.0.0.1")) as fake_api:
        fixture = ClientFixture(clock, fake_api.base_url)
        error = await fixture.poll_error()
        assert (error.reason, error.retryable) == ("tls", False)
        assert fixture.failures == {"tls": 1}
        assert fake_api.requests == []
        trusting = ClientFixture(clock, fake_api.base_url, ca_file=ca_file)
        assert await trusting.poll_ids() == ["a"]


async def test_a_name_that_is_unknown_is_tried_again(clock, monkeypatch):
    def unknown(*_args, **_options):
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    fixture = ClientFixture(clock, "http://api.invalid")
    assert (await fixture.poll_error()).reason == "dns"
    assert fixture.failures == {"dns": 5}


async def test_an_unreadable_proxy_url_fails_the_poll(fake_api, clock):
    proxy = FakeSecret("")
    proxy.value = None
    error = await ClientFixture(clock, fake_api.base_url, proxy=proxy).poll_error()
    assert error.reason == "connect"
    assert str(error) == f"there is no proxy: cannot read {proxy.source}: no such file"
    assert fake_api.requests == []


@pytest.mark.parametrize("members", [[PAGE], [PAGE[:10], PAGE[10:]]], ids=["one", "two members"])
async def test_a_page_may_be_gzip(fake_api, clock, members):
    fake_api.then(answer(200, gzipped(*members), content_encoding="gzip"))
    assert await ClientFixture(clock, fake_api.base_url).poll_ids() == ["a"]


async def test_all_1237_fine_tunes_on_13_pages_are_read(clock):
    world = World(Population(fine_tunes=1237))
    with served(create_app(Simulation(world))) as base_url:
        fixture = ClientFixture(clock, base_url)
        listing = await fixture.poll()
    assert list(listing.fine_tunes) == [item.id for item in world]
    read = [(f.name, f.description, f.status) for f in listing.fine_tunes.values()]
    sent = [(f.name, f.description, f.status) for f in world]
    assert read == [tuple(text.replace("\0", "\ufffd") for text in texts) for texts in sent]
    assert listing.pages == 13
    assert fixture.codes == {"200": 13}


async def test_an_api_that_fails_sometimes_is_read_completely(clock):
    world = World(Population(fine_tunes=437))
    simulation = Simulation(world, Faults(error_rate=0.3))
    with served(create_app(simulation)) as base_url:
        fixture = ClientFixture(clock, base_url)
        lists = [await fixture.poll_ids(seconds=1000) for _ in range(5)]
    assert lists == [[item.id for item in world]] * 5
    assert fixture.failures.keys() == {"server_error"}
    assert fixture.retries > 3


async def test_an_api_that_always_fails_is_an_error(clock):
    simulation = Simulation(World(Population(fine_tunes=5)), Faults(error_rate=1))
    with served(create_app(simulation)) as base_url:
        assert (await ClientFixture(clock, base_url).poll_error()).reason == "server_error"


async def test_a_rate_limited_api_is_retried_after_its_retry_after(clock):
    simulation = Simulation(World(Population(fine_tunes=5)), Faults(rate_limit=0.01))
    with served(create_app(simulation)) as base_url:
        fixture = ClientFixture(clock, base_url)
        await fixture.poll()
        error = await fixture.poll_error(seconds=60)
        assert error.reason == "rate_limited"
        assert error.retry_after is not None
        assert 90 <= error.retry_after <= 100
        assert clock.slept == []
        clock.now += error.retry_after
        simulation.faults = Faults(rate_limit=0.5)
        await fixture.poll_error(seconds=60)
        assert clock.slept[0] in {1, 2}, "what Retry-After says"
        simulation.faults = Faults()
        assert len(await fixture.poll_ids()) == 5
