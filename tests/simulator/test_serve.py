"""Serving inside a program: bound, silent, cleanly ended, and the world ticks meanwhile."""

import asyncio
import signal
import socket

import httpx
import pytest

from exporter import http_server as asgi
from exporter.simulator.api import Faults, Simulation, create_app
from exporter.simulator.serve import SimulateOptions, keep_ticking, serving, simulate
from exporter.simulator.world import Population, World
from tests.simulator.served_app import client

APP = create_app(Simulation(World(Population(fine_tunes=3))))


def status_code(base_url: str) -> int:
    with client(base_url) as http:
        return http.get("/fine-tunes/").status_code


def test_it_listens_when_it_yields_and_no_longer_when_it_has_ended():
    async def run() -> None:
        async with serving(APP, "127.0.0.1", 0) as base_url:
            assert await asyncio.to_thread(status_code, base_url) == 200
        with pytest.raises(httpx.ConnectError):
            await asyncio.to_thread(status_code, base_url)
        port = int(base_url.rpartition(":")[2])
        async with serving(APP, "127.0.0.1", port) as again:
            assert again == base_url
            assert await asyncio.to_thread(status_code, base_url) == 200

    asyncio.run(run())


def test_it_can_end_before_anyone_asked():
    async def run() -> None:
        async with serving(APP, "127.0.0.1", 0):
            pass

    asyncio.run(run())


def test_the_error_of_the_body_comes_through_as_it_is():
    async def run() -> None:
        async with serving(APP, "127.0.0.1", 0):
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        asyncio.run(run())


def test_a_hanging_request_does_not_hold_up_the_end():
    async def run() -> None:
        world = World(Population(fine_tunes=3))
        app = create_app(Simulation(world, Faults(latency=60)))
        async with serving(app, "127.0.0.1", 0) as base_url:
            host, _, port = base_url.removeprefix("http://").partition(":")
            _, writer = await asyncio.open_connection(host, int(port))
            writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            await writer.drain()
        writer.close()

    async def bounded() -> None:
        async with asyncio.timeout(10):
            await run()

    asyncio.run(bounded())


def test_signals_stay_with_the_program():
    async def run() -> None:
        before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
        async with serving(APP, "127.0.0.1", 0) as base_url:
            await asyncio.to_thread(status_code, base_url)
            now = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
            assert now == before

    asyncio.run(run())


async def try_port(host: str, port: int) -> None:
    async with serving(APP, host, port):
        raise AssertionError("it listens")


@pytest.mark.parametrize("port", [-1, 65536, 2**40])
def test_a_port_that_cannot_be_is_an_os_error(port):
    with pytest.raises(OSError, match="not between 0 and 65535"):
        asyncio.run(try_port("127.0.0.1", port))


def test_a_port_in_use_is_an_os_error():
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="in use"):
        asyncio.run(try_port("127.0.0.1", taken.getsockname()[1]))


def test_an_ipv6_address_is_bracketed():
    async def run() -> None:
        async with serving(APP, "::1", 0) as base_url:
            assert base_url.startswith("http://[::1]:")
            assert await asyncio.to_thread(status_code, base_url) == 200

    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    asyncio.run(run())


def test_simulate_serves_a_living_world_until_it_is_told_to_stop():
    async def run() -> None:
        stop, announced = asyncio.Event(), asyncio.get_running_loop().create_future()
        options = SimulateOptions(tick=0.01, population=Population(fine_tunes=5, churn=1))
        running = asyncio.create_task(simulate(options, stop, announced.set_result))
        base_url = await announced
        async with asyncio.timeout(20):
            first = await asyncio.to_thread(newest, base_url)
            while await asyncio.to_thread(newest, base_url) == first:
                pass
            stop.set()
            await running

    asyncio.run(run())


def newest(base_url: str) -> str:
    with client(base_url) as http:
        return str(http.get("/fine-tunes/").json()["data"][0]["id"])


def test_a_tick_of_zero_stops_time():
    async def run() -> None:
        world, stop = World(Population(fine_tunes=5, churn=1)), asyncio.Event()
        before = list(world)
        ticking = asyncio.create_task(keep_ticking(world, 0, stop))
        for _ in range(100):
            await asyncio.sleep(0)
        stop.set()
        await ticking
        assert list(world) == before

    asyncio.run(run())


def test_the_listener_knows_its_protocol_so_that_answers_are_not_delayed():
    async def run() -> int:
        with await asgi.listen("127.0.0.1", 0) as listener:
            return listener.proto

    assert asyncio.run(run()) == socket.IPPROTO_TCP
