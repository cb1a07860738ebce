"""What a request says: its path, the site that it comes from, and its user."""

from starlette.convertors import Convertor, register_url_convertor
from starlette.requests import Request

from exporter.web.auth import parse_basic_auth


class _TextConvertor(Convertor[str]):
    """Any text to the end of a path, as ids are: Starlette's own stops at a line break."""

    regex = "(?s:.+)"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("text", _TextConvertor())


def is_cross_site(request: Request) -> bool:
    """Return whether a browser sent the request for a page of another origin.

    Absent headers are no refusal: browsers send neither over plain HTTP to some hosts, and other
    clients never do. https://developer.mozilla.org/en-US/docs/Web/HTTP/Headers/Sec-Fetch-Site
    """
    site = request.headers.get("sec-fetch-site")
    if site is not None and site not in {"same-origin", "none"}:
        return True
    origin = request.headers.get("origin")
    if origin is None:
        return False
    host = request.headers.get("host", "")
    schemes = [request.url.scheme]
    # The browser compared the schemes. Behind a proxy that ends TLS they differ for the agent.
    if site is not None:
        schemes.append("https")
    return origin.lower() not in {f"{scheme}://{host}".lower() for scheme in schemes}


def id_of(request: Request) -> str:
    """Return the id in a path, or in the query: browsers resolve a path that ends in ``..``."""
    found: str = request.path_params.get("id") or request.query_params.get("fine_tune", "")
    return found


def user_of(request: Request) -> str:
    """Return the user of the web configuration who sent the request; empty without users."""
    credentials = parse_basic_auth(request.headers.get("authorization", "").encode("latin-1"))
    return credentials[0].decode(errors="replace") if credentials else ""
