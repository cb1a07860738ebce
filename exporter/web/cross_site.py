"""Recognition of requests that a page of another site had the browser send."""

from typing import Final
from urllib.parse import urlsplit

from starlette.requests import Request

_OWN_SITES: Final = ("same-origin", "none")  # none: the user's own doing, such as a bookmark


def is_cross_site(request: Request) -> bool:
    """Return whether a browser says that a page of another origin sent the request.

    Browsers add the password that they know to such requests. Other clients send neither header,
    and browsers send no Sec-Fetch-Site over plain HTTP to most hosts: absence is no refusal.
    """
    sites = request.headers.getlist("sec-fetch-site")
    origins = request.headers.getlist("origin")
    host = request.headers.get("host", "").lower()
    # The scheme is not compared: a proxy may have terminated TLS.
    return any(site not in _OWN_SITES for site in sites) or any(
        _host(origin) != host for origin in origins
    )


def _host(origin: str) -> str:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""
