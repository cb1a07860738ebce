"""Who may see details: whoever gave a valid password, if the web configuration has users."""

from typing import Final

from starlette.requests import HTTPConnection

TRUSTED: Final = "trusted"
"""The key of a request's state with which AuthMiddleware says whether its password was valid."""


def may_see_details(request: HTTPConnection) -> bool:
    """Whether the client gave a valid password, or none is needed."""
    return bool(getattr(request.state, TRUSTED, True))
