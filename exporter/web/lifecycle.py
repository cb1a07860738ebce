"""`/-/reload`: have the configuration read again, and hear what came of it."""

from collections.abc import Awaitable, Callable
from typing import Final

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

Reload = Callable[[], Awaitable[list[str]]]
"""Reloads; returns every reason why the old configuration stays in force, none if it doesn't."""

METHODS: Final = ("POST", "PUT")

_OFF: Final = (
    "Reloading over HTTP is off; start with --web.enable-lifecycle, or send the process SIGHUP.\n"
)
_HOW: Final = "This takes a POST or a PUT, as of: curl -X POST http://ADDRESS/-/reload\n"


def reload_endpoint(reload: Reload | None) -> Callable[[Request], Awaitable[Response]]:
    """Return what answers; ``reload`` is None when requests may not ask for one."""

    async def answer(request: Request) -> Response:
        if request.method not in METHODS:
            text = _OFF if reload is None else _HOW
            return PlainTextResponse(text, 405, {"Allow": ", ".join(METHODS)})
        if reload is None:
            return PlainTextResponse(_OFF, 403)
        problems = await reload()
        if problems:
            text = "The old configuration stays in force:\n" + "".join(f"  {p}\n" for p in problems)
            return PlainTextResponse(text, 500, {"X-Content-Type-Options": "nosniff"})
        return PlainTextResponse("The configuration is in force.\n")

    return answer
