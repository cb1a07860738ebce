"""Listening sockets and their errors, and serving until the service is stopped."""

import asyncio
import errno
import socket
from contextlib import closing

import pytest

from exporter.http_server import base_url, listen, serve


def accepts_connections(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=5).close()
    except OSError:
        return False
    return True


async def test_an_empty_host_listens_on_ipv4_and_ipv6():
    with closing(await listen("", 0)) as listener:
        port = listener.getsockname()[1]
        assert accepts_connections("127.0.0.1", port)
        assert accepts_connections("::1", port) or not socket.has_dualstack_ipv6()
        assert base_url(listener) == f"http://localhost:{port}"
        assert base_url(listener, tls=True) == f"https://localhost:{port}"


async def test_an_empty_host_listens_on_ipv4_if_ipv6_is_disabled(monkeypatch):
    real = socket.create_server

    def create_server(address, **named):
        if named.get("family") == socket.AF_INET6:
            raise OSError(errno.EADDRNOTAVAIL, "IPv6 is switched off")
        return real(address, **named)

    monkeypatch.setattr(socket, "create_server", create_server)
    with closing(await listen("", 0)) as listener:
        assert listener.family == socket.AF_INET
        assert accepts_connections("127.0.0.1", listener.getsockname()[1])


async def test_ipv4_is_preferred_for_a_name_with_both(monkeypatch):
    """As Go programs do: `localhost` then serves clients of 127.0.0.1."""
    addresses = [
        (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", 0, 0, 0)),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0)),
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: addresses)
    with closing(await listen("localhost", 0)) as listener:
        assert listener.getsockname()[0] == "127.0.0.1"


def test_the_url_of_a_unix_socket_is_its_path(tmp_path):
    for address, path in {str(tmp_path / "web"): str(tmp_path / "web"), "\0web": "@web"}.items():
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(address)
            assert base_url(bound) == base_url(bound, tls=True) == f"unix:{path}"


async def test_an_error_names_a_port_in_use():
    with closing(await listen("127.0.0.1", 0)) as first:
        port = first.getsockname()[1]
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{port}: Address already in"):
            await listen("127.0.0.1", port)
    with closing(await listen("", 0)) as first:
        port = first.getsockname()[1]
        with pytest.raises(OSError, match=f"cannot listen on :{port}: Address already in use"):
            await listen("", port)


async def test_an_error_names_an_address_that_is_not_local():
    with pytest.raises(OSError, match=r"cannot listen on 192\.0\.2\.1:80: Cannot assign"):
        await listen("192.0.2.1", 80)


async def test_an_error_names_a_host_that_does_not_resolve(monkeypatch):
    def getaddrinfo(*_, **__):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with pytest.raises(OSError, match="cannot listen on nowhere:80: Name or service not known"):
        await listen("nowhere", 80)


async def test_a_response_without_end_does_not_delay_the_shutdown_or_log_a_traceback(caplog):
    requested, stop = asyncio.Event(), asyncio.Event()

    async def never_responds(_scope, _receive, _send):
        requested.set()
        await asyncio.Event().wait()

    with await listen("127.0.0.1", 0) as listener:
        serving = asyncio.create_task(serve(never_responds, [listener], stop))
        _, writer = await asyncio.open_connection(*listener.getsockname())
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await asyncio.wait_for(requested.wait(), 10)
        stop.set()
        await asyncio.wait_for(serving, 5)
        writer.close()
    assert "Traceback" not in caplog.text


async def test_an_exception_of_the_application_is_logged(caplog):
    stop = asyncio.Event()

    async def raises(_scope, _receive, _send):
        raise KeyError("the bug")

    with await listen("127.0.0.1", 0) as listener:
        serving = asyncio.create_task(serve(raises, [listener], stop))
        reader, writer = await asyncio.open_connection(*listener.getsockname())
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 500 ")
        writer.close()
        stop.set()
        await asyncio.wait_for(serving, 5)
    assert "KeyError: 'the bug'" in caplog.text
