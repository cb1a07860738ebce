"""The client against real sockets: lists that break off, drip, bloat, hang, or are just long."""

import asyncio
import json
import socket
import time

import pytest

from exporter.cartesia import fetch as lane
from exporter.simulator.api import Faults, Simulation, create_app
from exporter.simulator.world import Population, World
from tests.cartesia.client_fixture import KEY, REAL_CLOCK, Account
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
def fake():
    with FakeApi([fine_tune("a")]) as server:
        yield server


def test_a_list_is_read_over_one_connection(fake, clock):
    fake.fine_tunes = [fine_tune(f"ft_{number}") for number in range(250)]
    listing = Account(clock, fake.base_url).list()
    assert list(listing.fine_tunes) == [item["id"] for item in fake.fine_tunes]
    assert [request.target for request in fake.requests] == [
        "/fine-tunes/?limit=100",
        "/fine-tunes/?limit=100&starting_after=ft_99",
        "/fine-tunes/?limit=100&starting_after=ft_199",
    ]
    assert {request.headers["authorization"] for request in fake.requests} == {f"Bearer {KEY}"}
    assert fake.connections == 1


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        pytest.param(sends_then_hangs_up(), "protocol", id="hung up without an answer"),
        pytest.param(sends_then_resets(), "connect", id="reset without an answer"),
        pytest.param(sends_then_hangs_up(b"HTTP/1.1 200 "), "protocol", id="cut in the status"),
        pytest.param(
            sends_then_hangs_up(head(200, content_length=99) + PAGE), "protocol", id="cut short"
        ),
        pytest.param(
            sends_then_resets(head(200, content_length=99) + PAGE), "connect", id="reset in it"
        ),
        pytest.param(chunked([PAGE], complete=False), "protocol", id="without the last chunk"),
        pytest.param(
            answer(200, gzipped(PAGE)[:-9], content_encoding="gzip"), "protocol", id="cut gzip"
        ),
        pytest.param(answer(200, PAGE, content_encoding="gzip"), "protocol", id="no gzip at all"),
        pytest.param(answer(200, PAGE, content_encoding="br"), "protocol", id="not asked for"),
        pytest.param(sends_then_hangs_up(b"SSH-2.0-OpenSSH\r\n"), "protocol", id="not HTTP"),
        pytest.param(as_json(problem(503), 503), "server_error", id="a server error"),
    ],
)
@pytest.mark.parametrize("cursor", [None, "ft_99"], ids=["the first page", "a continuation"])
def test_a_broken_page_is_asked_for_again_and_nothing_is_missing(
    fake, clock, broken, reason, cursor
):
    fake.fine_tunes = [fine_tune(f"ft_{number}") for number in range(150)]
    if cursor is not None:
        fake.then(as_json(page(fake.fine_tunes[:100], has_more=True)))
    fake.then(broken)
    account = Account(clock, fake.base_url)
    assert len(account.list().fine_tunes) == 150
    assert account.failures == {reason: 1}
    assert account.retries == 1
    assert [request.query.get("starting_after") for request in fake.requests].count(cursor) == 2


def test_a_page_that_stays_broken_fails_the_list_after_five_attempts(fake, clock):
    fake.then(as_json(page([fine_tune("b")], has_more=True)))
    fake.otherwise = sends_then_hangs_up(head(200, content_length=99) + PAGE)
    account = Account(clock, fake.base_url)
    assert account.fails().reason == "protocol"
    assert len(fake.requests) == 1 + 5


def test_an_answer_too_many_is_not_taken_for_the_next_list(fake, clock):
    fake.fine_tunes = [fine_tune("a"), fine_tune("b")]
    last = json.dumps(page(fake.fine_tunes[1:], has_more=False)).encode()
    message = head(200, content_length=len(last)) + last
    fake.then(as_json(page(fake.fine_tunes[:1], has_more=True)))
    fake.then(sends(message + message))
    account = Account(clock, fake.base_url)

    async def two_polls() -> list[list[str]]:
        return [list((await account.client.list_fine_tunes(60)).fine_tunes) for _ in range(2)]

    assert asyncio.run(two_polls()) == [["a", "b"], ["a", "b"]]


SURPLUS = b'{"data":[],"has_more":false}'


@pytest.mark.parametrize(
    ("status", "body", "headers"),
    [
        pytest.param(200, b'{"data":[{"id":"a"}],"has_more":true}', {}, id="behind a page"),
        pytest.param(503, b"", {}, id="behind an error"),
        pytest.param(307, b"", {"location": "/fine-tunes/?limit=100"}, id="behind a redirect"),
    ],
)
def test_an_answer_too_many_does_not_pass_for_the_next_page(fake, clock, status, body, headers):
    """An empty last page that nobody asked for would be the removal of all that follows."""
    asked_for = head(status, content_length=len(body), **headers) + body
    fake.fine_tunes = [fine_tune("a"), fine_tune("b")]
    fake.then(sends(asked_for + head(200, content_length=len(SURPLUS)) + SURPLUS))
    assert list(Account(clock, fake.base_url).list().fine_tunes) == ["a", "b"]


@pytest.mark.parametrize(
    "other", [answer(503), redirect("/fine-tunes/?limit=100")], ids=["an error", "a redirect"]
)
def test_after_any_answer_but_a_page_the_connection_is_a_new_one(fake, clock, other):
    """An answer too many that comes a moment later could not be told from the right one."""
    fake.then(other)
    assert list(Account(clock, fake.base_url).list().fine_tunes) == ["a"]
    assert [request.connection for request in fake.requests] == [1, 2]


def test_a_list_without_an_end_is_not_read_for_ever(fake, clock, monkeypatch):
    monkeypatch.setattr("exporter.cartesia.prefetch._MOST_BYTES", 20_000)
    for number in range(1000):
        fake.then(as_json(page([fine_tune(f"endless{number}")], has_more=True)))
    error = Account(clock, fake.base_url).fails()
    assert error.reason == "too_large"
    assert len(fake.requests) < 1000


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(chunked(zeros(64)), id="64 MB"),
        pytest.param(answer(200, gzip_bomb(64), content_encoding="gzip"), id="64 MB in 64 KB"),
    ],
)
def test_a_page_above_8_mib_fails_at_once(fake, clock, sent):
    fake.otherwise = sent
    account = Account(clock, fake.base_url)
    error = account.fails()
    assert (error.reason, str(error)) == ("too_large", "a page is larger than 8388608 bytes")
    assert len(fake.requests) == 1
    assert fake.bytes_sent < 32 * 2**20


def test_a_page_of_just_8_mib_is_read(fake, clock):
    fake.then(answer(200, PAGE + b" " * (8 * 2**20 - len(PAGE))))
    assert list(Account(clock, fake.base_url).list().fine_tunes) == ["a"]


@pytest.mark.parametrize(
    "slow",
    [
        pytest.param(silence, id="no answer"),
        pytest.param(drips(b"HTTP/1.1 200 OK\r\nX: "), id="headers that never end"),
        pytest.param(drips(head(200, content_length=10**6)), id="a body that drips"),
        pytest.param(drips(head(200, transfer_encoding="chunked"), b"1\r\n \r\n"), id="in chunks"),
    ],
)
def test_a_slow_server_is_cut_off_at_the_polls_deadline(fake, slow):
    fake.otherwise = slow
    account = Account(REAL_CLOCK, fake.base_url)
    started = time.monotonic()
    error = account.fails(seconds=0.3)
    assert 0.3 <= time.monotonic() - started < 5
    assert error.reason == "timeout"
    assert "poll.timeout" in str(error)
    assert len(fake.requests) == 1


def test_a_repeat_that_the_deadline_cuts_short_does_not_hide_what_is_wrong(fake):
    """With a moment left after a 503, the next attempt's time-out was the reason that was told."""
    fake.then(answer(503), silence)
    account = Account(REAL_CLOCK, fake.base_url)
    assert account.fails(seconds=0.3).reason == "server_error"
    assert account.failures == {"server_error": 1, "timeout": 1}


def test_one_hung_request_leaves_time_for_another(fake, monkeypatch):
    monkeypatch.setattr(lane, "_REQUEST_SECONDS", 0.2)
    fake.then(drips(head(200, content_length=10**6)))
    account = Account(REAL_CLOCK, fake.base_url)
    assert list(account.list(seconds=30).fine_tunes) == ["a"]
    assert account.failures == {"timeout": 1}


def test_a_slow_list_is_cut_off_though_each_page_is_quick(fake):
    """Pages that never repeat and never end: only the deadline ends them."""
    numbers = iter(range(10**9))

    def endless(peer):
        peer.wait(0.01)
        as_json(page([fine_tune(f"ft_{next(numbers)}")], has_more=True))(peer)

    fake.otherwise = endless
    error = Account(REAL_CLOCK, fake.base_url).fails(seconds=0.4)
    assert error.reason == "timeout"
    assert len(fake.requests) > 1


def test_a_redirect_to_another_port_of_this_machine_is_not_followed(fake, clock):
    with FakeApi() as other:
        fake.then(redirect(f"{other.base_url}/fine-tunes/"))
        assert Account(clock, fake.base_url).fails().reason == "redirect"
        assert (other.connections, other.requests) == (0, [])


def test_a_redirect_to_the_path_without_the_slash_is_followed(fake, clock):
    fake.then(redirect("/fine-tunes?limit=100"))
    assert list(Account(clock, fake.base_url).list().fine_tunes) == ["a"]
    assert [request.path for request in fake.requests] == ["/fine-tunes/", "/fine-tunes"]


def test_a_dead_api_is_tried_five_times(fake, clock):
    account = Account(clock, "http://127.0.0.1:1")
    error = account.fails()
    assert (error.reason, str(error)) == ("connect", "no connection: Connection refused")
    assert account.failures == {"connect": 5}
    assert account.codes == {}


def test_a_certificate_that_is_refused_is_not_tried_again(clock, tmp_path):
    issuer, ca_file = authority(tmp_path)
    with FakeApi([fine_tune("a")], server_context(issuer, "127.0.0.1")) as fake:
        account = Account(clock, fake.base_url)
        error = account.fails()
        assert (error.reason, error.retryable) == ("tls", False)
        assert account.failures == {"tls": 1}
        assert fake.requests == []
        trusting = Account(clock, fake.base_url, ca_file=ca_file)
        assert list(trusting.list().fine_tunes) == ["a"]


def test_a_name_that_is_unknown_is_tried_again(clock, monkeypatch):
    def unknown(*_args, **_options):
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    account = Account(clock, "http://api.invalid")
    assert account.fails().reason == "dns"
    assert account.failures == {"dns": 5}


def test_a_proxy_that_cannot_be_read_fails_the_poll_and_is_named(fake, clock):
    proxy = FakeSecret("")
    proxy.value = None
    error = Account(clock, fake.base_url, proxy=proxy).fails()
    assert error.reason == "connect"
    assert str(error) == f"there is no proxy: cannot read {proxy.source}: no such file"
    assert fake.requests == []


@pytest.mark.parametrize("members", [[PAGE], [PAGE[:10], PAGE[10:]]], ids=["one", "two members"])
def test_a_page_may_be_gzip(fake, clock, members):
    fake.then(answer(200, gzipped(*members), content_encoding="gzip"))
    assert list(Account(clock, fake.base_url).list().fine_tunes) == ["a"]


def test_1237_fine_tunes_on_13_pages_are_1237(clock):
    world = World(Population(fine_tunes=1237))
    with served(create_app(Simulation(world))) as base_url:
        account = Account(clock, base_url)
        listing = account.list()
    assert list(listing.fine_tunes) == [item.id for item in world]
    read = [(f.name, f.description, f.status) for f in listing.fine_tunes.values()]
    assert read == [(f.name, f.description, f.status) for f in world]
    assert listing.pages == 13
    assert account.codes == {"200": 13}


def test_an_api_that_fails_at_times_is_read_whole_or_not_at_all(clock):
    world = World(Population(fine_tunes=437))
    simulation = Simulation(world, Faults(error_rate=0.3))
    with served(create_app(simulation)) as base_url:
        account = Account(clock, base_url)
        lists = [list(account.list(seconds=1000).fine_tunes) for _ in range(5)]
    assert lists == [[item.id for item in world]] * 5
    assert account.failures.keys() == {"server_error"}
    assert account.retries > 3


def test_an_api_that_fails_always_is_not_read(clock):
    simulation = Simulation(World(Population(fine_tunes=5)), Faults(error_rate=1))
    with served(create_app(simulation)) as base_url:
        assert Account(clock, base_url).fails().reason == "server_error"


def test_an_api_that_limits_the_rate_is_told_so_and_waited_for(clock):
    simulation = Simulation(World(Population(fine_tunes=5)), Faults(rate_limit=0.01))
    with served(create_app(simulation)) as base_url:
        account = Account(clock, base_url)
        account.list()
        error = account.fails(seconds=60)
        assert error.reason == "rate_limited"
        assert error.retry_after is not None
        assert 90 <= error.retry_after <= 100
        assert clock.slept == []
        clock.now += error.retry_after
        simulation.faults = Faults(rate_limit=0.5)
        account.fails(seconds=60)
        assert clock.slept[0] in {1, 2}, "what Retry-After says"
        simulation.faults = Faults()
        assert len(account.list().fine_tunes) == 5
