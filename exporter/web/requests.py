"""What a request says: its path, its user and its body."""

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


class BodyTooLongError(Exception):
    """A body is longer than allowed; the text has the limit."""


register_url_convertor("text", _TextConvertor())


def id_of(request: Request) -> str:
    """Return the id in a path, or in the query: browsers resolve a path that ends in ``..``."""
    found: str = request.path_params.get("id") or request.query_params.get("fine_tune", "")
    return found


def user_of(request: Request) -> str:
    """Return the user of the web configuration who sent the request; empty without users."""
    credentials = parse_basic_auth(request.headers.get("authorization", "").encode("latin-1"))
    return credentials[0].decode(errors="replace") if credentials else ""


async def read_body(request: Request, most: int) -> bytes:
    """Return the body of a request. Raises BodyTooLongError if it has more than ``most`` bytes."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > most:
            raise BodyTooLongError(f"It is longer than {most // 1024} KiB.")
    return body
