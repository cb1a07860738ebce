"""Secrets: a callable that returns the value, with a source that may be logged."""

from typing import Protocol


class SecretError(Exception):
    """A secret cannot be read; the text names the file or variable, never the value."""


class Secret(Protocol):
    """A secret. Each call reads it again, so a rotated file works without a restart."""

    @property
    def source(self) -> str:
        """Where it comes from, for logs: a path, ``$VARIABLE`` or a configuration key."""
        ...

    def __call__(self) -> str:
        """Return the secret, stripped of whitespace; raise SecretError when it can't be read."""
        ...
