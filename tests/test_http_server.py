"""Listening on what was asked for, or an error that says why not; serving until it is to stop."""

import asyncio
import errno
import socket
from contextlib import closing

import pytest

from exporter import http_server as asgi


def listen(host: str, port: int = 0) -> socket.socket:
    return asyncio.run(asgi.listen(host, port))


def connects(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=5).close()
    except OSError:
        return False
    return True


def test_every_address_is_reached_by_both_protocols():
    with closing(listen("")) as listener:
        port = listener.getsockname()[1]
        assert connects("127.0.0.1", port)
        assert connects("::1", port) or not socket.has_dualstack_ipv6()
        assert asgi.base_url(listener) == f"http://localhost:{port}"
        assert asgi.base_url(listener, tls=True) == f"https://localhost:{port}"


def test_without_ipv6_every_address_is_every_ipv4_address(monkeypatch):
    real = socket.create_server

    def create_server(address, **named):
        if named.get("family") == socket.AF_INET6:
            raise OSError(errno.EADDRNOTAVAIL, "IPv6 is switched off")
        return real(address, **named)

    monkeypatch.setattr(socket, "create_server", create_server)
    with closing(listen("")) as listener:
        assert listener.family == socket.AF_INET
        assert connects("127.0.0.1", listener.getsockname()[1])


def test_a_name_with_addresses_of_both_protocols_is_its_ipv4_address(monkeypatch):
    """As Go's programs do: `localhost` then answers those who ask 127.0.0.1."""
    found = [
        (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", 0, 0, 0)),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0)),
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    with closing(listen("localhost")) as listener:
        assert listener.getsockname()[0] == "127.0.0.1"


def test_a_unix_socket_is_shown_by_its_path(tmp_path):
    for place, shown in {str(tmp_path / "web"): str(tmp_path / "web"), "\0web": "@web"}.items():
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(place)
            assert asgi.base_url(bound) == asgi.base_url(bound, tls=True) == f"unix:{shown}"


def test_a_port_in_use_is_named():
    with closing(listen("127.0.0.1")) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{port}: Address already in"):
            listen("127.0.0.1", port)
    with closing(listen("")) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"cannot listen on :{port}: Address already in use"):
            listen("", port)


def test_an_address_of_another_machine_is_named():
    with pytest.raises(OSError, match=r"cannot listen on 192\.0\.2\.1:80: Cannot assign"):
        listen("192.0.2.1", 80)


def test_a_host_that_does_not_resolve_is_named(monkeypatch):
    def getaddrinfo(*_, **__):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with pytest.raises(OSError, match="cannot listen on nowhere:80: Name or service not known"):
        listen("nowhere", 80)


def test_an_answer_that_never_ends_does_not_hold_up_the_end_and_is_no_bug(caplog):
    async def run() -> None:
        asked, stop = asyncio.Event(), asyncio.Event()

        async def never(_scope, _receive, _send):
            asked.set()
            await asyncio.Event().wait()

        with await asgi.listen("127.0.0.1", 0) as listener:
            serving = asyncio.create_task(asgi.serve(never, [listener], stop))
            _, writer = await asyncio.open_connection(*listener.getsockname())
            writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            await asyncio.wait_for(asked.wait(), 10)
            stop.set()
            await asyncio.wait_for(serving, 5)
            writer.close()

    asyncio.run(run())
    assert "Traceback" not in caplog.text


def test_a_bug_in_an_answer_is_told(caplog):
    async def run() -> None:
        stop = asyncio.Event()

        async def broken(_scope, _receive, _send):
            raise KeyError("the bug")

        with await asgi.listen("127.0.0.1", 0) as listener:
            serving = asyncio.create_task(asgi.serve(broken, [listener], stop))
            reader, writer = await asyncio.open_connection(*listener.getsockname())
            writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert (await reader.readline()).startswith(b"HTTP/1.1 500 ")
            writer.close()
            stop.set()
            await asyncio.wait_for(serving, 5)

    asyncio.run(run())
    assert "KeyError: 'the bug'" in caplog.text
