"""Errors of reading the Cartesia API."""

from dataclasses import dataclass
from typing import Final, Literal, get_args

Reason = Literal[
    "connect",
    "dns",
    "tls",
    "timeout",
    "rate_limited",
    "unauthorized",
    "forbidden",
    "client_error",
    "server_error",
    "redirect",
    "too_large",
    "protocol",
]

REASONS: Final[tuple[Reason, ...]] = get_args(Reason)

POLL_TIMEOUT: Final = "the time for the whole poll is over (poll.timeout)"


@dataclass(eq=False)
class CartesiaError(Exception):
    """The list could not be read completely; the text says why and what to check.

    ``reason`` is the label value of the metrics, ``status`` the HTTP status if there was one.
    ``retryable`` says whether the same request may succeed soon. ``retry_after`` is the wait that
    the API asked for, in seconds.
    """

    reason: Reason
    detail: str
    status: int | None = None
    retryable: bool = False
    retry_after: float | None = None

    def __str__(self) -> str:
        return self.detail
