"""Why the API could not be read."""

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

OVER: Final = "the time for the whole poll is over (poll.timeout)"


class CartesiaError(Exception):
    """The listing could not be read completely; the text says why and what to look at.

    ``reason`` is the metrics' label. ``status`` is the HTTP status, if there was one. ``retryable``
    says whether the same request may succeed in a moment; ``retry_after`` is the wait that the API
    asked for, in seconds.
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
        """Return the same error, saying on which page of the list it came."""
        return CartesiaError(
            self.reason,
            f"page {number}: {self}",
            status=self.status,
            retryable=self.retryable,
            retry_after=self.retry_after,
        )
