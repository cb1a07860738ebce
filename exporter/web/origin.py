"""Where a request comes from: another site, or which user."""

from urllib.parse import urlsplit

from starlette.requests import Request

from exporter.web.auth import parse_basic_auth


def is_cross_site(request: Request) -> bool:
    """Return whether a browser sent the request for a page of another origin.

    Absent headers are no refusal: browsers send neither over plain HTTP to some hosts, and other
    clients never do. https://developer.mozilla.org/en-US/docs/Web/HTTP/Headers/Sec-Fetch-Site
    """
    site = request.headers.get("sec-fetch-site")
    if site is not None and site not in {"same-origin", "none"}:
        return True
    origin = request.headers.get("origin")
    return origin is not None and urlsplit(origin).netloc != request.headers.get("host", "")


def user_of(request: Request) -> str:
    """Return the user of the web configuration who sent the request; empty without users."""
    credentials = parse_basic_auth(request.headers.get("authorization", "").encode("latin-1"))
    return credentials[0].decode(errors="replace") if credentials else ""
