"""What a part knows of a secret: a function that returns it and a name that may be logged."""

from typing import Protocol


class SecretError(Exception):
    """A secret cannot be read right now; the text names the file or variable, never the value."""


class Secret(Protocol):
    """A secret, read again at each call, so that a rotated file works without a restart."""

    @property
    def source(self) -> str:
        """Where it comes from, fit for logs: a path, ``$VARIABLE`` or a configuration key."""
        ...

    def __call__(self) -> str:
        """Return the secret, stripped of whitespace; raise SecretError when it can't be read."""
        ...
