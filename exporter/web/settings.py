"""The web configuration as plain values; whoever reads the file hands them in."""

import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


class UnusableError(Exception):
    """The web configuration cannot be used now; problems has one text for each mistake in it."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


@dataclass(frozen=True, slots=True)
class RateLimit:
    """One request in ``interval`` seconds, and up to ``burst`` at once after a pause."""

    interval: float
    burst: int


@dataclass(frozen=True, slots=True)
class WebSettings:
    """What one reading of the file says.

    Attributes:
        tls: what new connections are served with; None for plain HTTP.
        headers: added to each answer.
        users: bcrypt hashes by name, both as bytes; empty when no password is needed.
        rate_limit: None for no limit.
        notes: what was accepted and has no effect, in words.
    """

    tls: ssl.SSLContext | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    users: Mapping[bytes, bytes] = field(default_factory=dict, repr=False)
    rate_limit: RateLimit | None = None
    notes: tuple[str, ...] = ()


Source = Callable[[], WebSettings | None]
"""Returns the settings when they changed since they were read last, else None.

Blocks on files. Raises UnusableError, once a change, when they changed and cannot be used.
"""
