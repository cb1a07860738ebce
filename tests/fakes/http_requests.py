"""Single requests with an HttpClient of their own."""

from collections.abc import Mapping
from pathlib import Path

from exporter.core.secret import Secret
from exporter.http_client import Bounds, HttpClient, HttpClientError, Request, Response

BOUNDS = Bounds(10, 1000)


def get(url: str, headers: Mapping[str, str] | None = None) -> Request:
    return Request("GET", url, headers or {})


async def send(
    request: Request | str,
    bounds: Bounds = BOUNDS,
    *,
    ca_file: Path | None = None,
    proxy: Secret | None = None,
) -> Response:
    """Send a request, or GET a URL."""
    async with HttpClient(ca_file=ca_file, proxy=proxy) as http_client:
        return await http_client.send(
            request if isinstance(request, Request) else get(request), bounds
        )


async def send_error(
    request: Request | str,
    bounds: Bounds = BOUNDS,
    *,
    ca_file: Path | None = None,
    proxy: Secret | None = None,
) -> HttpClientError:
    """Send a request, or GET a URL, that must get no answer or an incomplete one."""
    try:
        response = await send(request, bounds, ca_file=ca_file, proxy=proxy)
    except HttpClientError as error:
        return error
    assert response.error is not None
    assert response.body == b""
    return response.error
