"""Serving an application inside a running event loop, and the simulated world's clock."""

import asyncio
import signal
import socket

import httpx
import pytest

from exporter import http_server
from exporter.simulator.api import Faults, Simulation, create_app
from exporter.simulator.serve import SimulateOptions, keep_ticking, serving, simulate
from exporter.simulator.world import Population, World
from tests.simulator.served_app import client

APP = create_app(Simulation(World(Population(fine_tunes=3))))


def status_code(base_url: str) -> int:
    with client(base_url) as http:
        return http.get("/fine-tunes/").status_code


async def test_the_server_listens_inside_the_context_only():
    async with serving(APP, "127.0.0.1", 0) as base_url:
        assert await asyncio.to_thread(status_code, base_url) == 200
    with pytest.raises(httpx.ConnectError):
        await asyncio.to_thread(status_code, base_url)
    port = int(base_url.rpartition(":")[2])
    async with serving(APP, "127.0.0.1", port) as again:
        assert again == base_url
        assert await asyncio.to_thread(status_code, base_url) == 200


async def test_the_server_ends_without_any_request():
    async with serving(APP, "127.0.0.1", 0):
        pass


async def test_an_exception_inside_the_context_is_raised_unchanged():
    with pytest.raises(KeyError, match="mine"):
        async with serving(APP, "127.0.0.1", 0):
            raise KeyError("mine")


async def test_a_hanging_request_does_not_delay_the_end():
    app = create_app(Simulation(World(Population(fine_tunes=3)), Faults(latency=60)))
    async with asyncio.timeout(10):
        async with serving(app, "127.0.0.1", 0) as base_url:
            host, _, port = base_url.removeprefix("http://").partition(":")
            _, writer = await asyncio.open_connection(host, int(port))
            writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            await writer.drain()
        writer.close()


async def test_the_server_installs_no_signal_handlers():
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]
    async with serving(APP, "127.0.0.1", 0) as base_url:
        await asyncio.to_thread(status_code, base_url)
        assert [signal.getsignal(number) for number in numbers] == before


async def test_a_port_out_of_range_is_an_os_error():
    for port in (-1, 65536, 2**40):
        with pytest.raises(OSError, match="not between 0 and 65535"):
            async with serving(APP, "127.0.0.1", port):
                pass


async def test_a_port_in_use_is_an_os_error():
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(OSError, match="in use"):
        async with serving(APP, "127.0.0.1", other.getsockname()[1]):
            pass


async def test_an_ipv6_address_is_bracketed():
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    async with serving(APP, "::1", 0) as base_url:
        assert base_url.startswith("http://[::1]:")
        assert await asyncio.to_thread(status_code, base_url) == 200


async def test_simulate_serves_a_changing_world_until_it_is_stopped():
    stop, announced = asyncio.Event(), asyncio.get_running_loop().create_future()
    options = SimulateOptions(tick=0.01, population=Population(fine_tunes=5, churn=1))
    running = asyncio.create_task(simulate(options, stop, announced.set_result))
    base_url = await announced
    async with asyncio.timeout(20):
        first = await asyncio.to_thread(newest_id, base_url)
        while await asyncio.to_thread(newest_id, base_url) == first:
            pass
        stop.set()
        await running


def newest_id(base_url: str) -> str:
    with client(base_url) as http:
        return str(http.get("/fine-tunes/").json()["data"][0]["id"])


async def test_a_tick_of_zero_seconds_never_changes_the_world():
    world, stop = World(Population(fine_tunes=5, churn=1)), asyncio.Event()
    before = list(world)
    ticking = asyncio.create_task(keep_ticking(world, 0, stop))
    for _ in range(100):
        await asyncio.sleep(0)
    stop.set()
    await ticking
    assert list(world) == before


async def test_nagles_delay_is_off_on_accepted_connections():
    """Asyncio turns it off only where the listener knows its protocol."""
    with await http_server.listen("127.0.0.1", 0) as listener:
        assert listener.proto == socket.IPPROTO_TCP
