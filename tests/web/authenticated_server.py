"""A server behind AuthMiddleware on real sockets, and the web configuration file of a test."""

import asyncio
import contextlib
import json
import ssl
import threading
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import bcrypt
import httpx
import pytest
import trustme
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from exporter import http_server
from exporter.config.web_file import WebFile
from exporter.web import live_config
from exporter.web.auth import AuthMiddleware
from exporter.web.live_config import ReloadingWebConfig

USER, PASSWORD = "ännchen", "pässwort:zwei"


@cache
def hash_of(password: str, cost: int = 4) -> str:
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(cost)).decode()


async def echo_app(scope: Scope, receive: Receive, send: Send) -> None:
    """Return path, scheme and whether the client may see details, with some headers."""
    headers = {"X-Frame-Options": "deny", "Content-Security-Policy": "default-src 'none'"}
    text = f"{scope['path']} trusted={scope['state']['trusted']} {scope['scheme']}"
    await PlainTextResponse(text, headers=headers)(scope, receive, send)


class WebConfigFixture:
    """A web configuration file in a folder, and an authority for its certificates."""

    def __init__(self, folder: Path, **config: Any) -> None:
        self.path = folder / "web.yml"
        self.folder = folder
        self.ca = trustme.CA()
        self.write(**config)

    def write(self, **config: Any) -> None:
        self.path.write_text(json.dumps(config), encoding="utf-8")

    def issue(self, *names: str, ca: trustme.CA | None = None) -> dict[str, str]:
        """Write a certificate and key for these names; return the keys that name them."""
        issued = (ca or self.ca).issue_cert(*(names or ("127.0.0.1", "localhost")))
        cert = b"".join(pem.bytes() for pem in issued.cert_chain_pems)
        (self.folder / "cert.pem").write_bytes(cert)
        (self.folder / "key.pem").write_bytes(issued.private_key_pem.bytes())
        return {"cert_file": "cert.pem", "key_file": "key.pem"}

    def trust_clients_of(self, ca: trustme.CA) -> dict[str, str]:
        """Write the authority for client certificates; return the key that names it."""
        ca.cert_pem.write_to_path(self.folder / "clients.pem")
        return {"client_ca_file": "clients.pem"}

    def client(self, cert: trustme.LeafCert | None = None, **versions: Any) -> ssl.SSLContext:
        """Return a client's context, with an optional certificate of its own."""
        context = ssl.create_default_context(cadata=self.ca.cert_pem.bytes().decode())
        if cert is not None:
            cert.configure_cert(context)
        for name, value in versions.items():
            setattr(context, name, value)
        return context

    @contextlib.contextmanager
    def served(self, app: ASGIApp = echo_app, listeners: int = 1) -> Iterator[list[str]]:
        """Serve ``app`` behind this web configuration; yield the URLs."""
        file = WebFile(self.path)
        live = ReloadingWebConfig(file.read(), file.read_if_changed)
        with (
            pytest.MonkeyPatch.context() as patch,
            serving(AuthMiddleware(app, live), listeners, live.listening_tls) as urls,
        ):
            # A check of the files that is slow under load must not let a test see old settings.
            patch.setattr(live_config, "_REQUEST_WAIT_SECONDS", 30.0)
            patch.setattr(live_config, "_CONNECTION_WAIT_SECONDS", 30.0)
            yield urls


@contextlib.contextmanager
def serving(app: ASGIApp, listeners: int, tls: ssl.SSLContext | None) -> Iterator[list[str]]:
    """Serve ``app`` in a thread with its own event loop; yield the URLs."""
    ready, stop = threading.Event(), asyncio.Event()
    urls: list[str] = []
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        sockets = [await http_server.listen("127.0.0.1", 0) for _ in range(listeners)]
        urls.extend(http_server.base_url(each, tls=tls is not None) for each in sockets)
        loop.call_soon(ready.set)
        await http_server.serve(app, sockets, stop, tls)

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        assert ready.wait(10)
        yield urls
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()


def ask(
    url: str, *, auth: tuple[str, str] | None = None, tls: ssl.SSLContext | None = None, **more: Any
) -> httpx.Response:
    """Send a GET request on a new connection."""
    with httpx.Client(trust_env=False, timeout=10, verify=tls or False) as client:
        encoded = None if auth is None else (auth[0].encode(), auth[1].encode())
        return client.get(url, auth=encoded, **more)
