"""Errors of reading the Cartesia API."""

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


class CartesiaError(Exception):
    """The list could not be read completely; the text says why and what to check.

    ``reason`` is the label value of the metrics, ``status`` the HTTP status if there was one.
    ``retryable`` says whether the same request may succeed soon. ``retry_after`` is the wait that
    the API asked for, in seconds.
    """

    def __init__(
        self,
        reason: Reason,
        detail: str,
        *,
        status: int | None = None,
        retryable: bool = False,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(detail)
        self.reason: Reason = reason
        self.status = status
        self.retryable = retryable
        self.retry_after = retry_after

    def on_page(self, number: int) -> "CartesiaError":
        """Return the same error with the page's number (from 1) in its text."""
        return CartesiaError(
            self.reason,
            f"page {number}: {self}",
            status=self.status,
            retryable=self.retryable,
            retry_after=self.retry_after,
        )
