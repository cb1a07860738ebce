"""One exchange in an event loop of its own."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

from exporter.core.secret import Secret
from exporter.http_client import Bounds, HttpClient, HttpClientError, Request, Response

BOUNDS = Bounds(10, 1000)


def send(
    request: Request | str,
    bounds: Bounds = BOUNDS,
    *,
    ca_file: Path | None = None,
    proxy: Secret | None = None,
) -> Response:
    """Send a request, or GET a URL."""
    asked = request if isinstance(request, Request) else get(request)

    async def run() -> Response:
        async with HttpClient(ca_file=ca_file, proxy=proxy) as http_client:
            return await http_client.send(asked, bounds)

    return asyncio.run(run())


def get(url: str, headers: Mapping[str, str] | None = None) -> Request:
    return Request("GET", url, headers or {})


def fails(
    request: Request | str,
    bounds: Bounds = BOUNDS,
    *,
    ca_file: Path | None = None,
    proxy: Secret | None = None,
) -> HttpClientError:
    """Send a request, or GET a URL, and get no answer or none that is complete."""
    try:
        response = send(request, bounds, ca_file=ca_file, proxy=proxy)
    except HttpClientError as error:
        return error
    assert response.broken is not None
    assert response.body == b""
    return response.broken
