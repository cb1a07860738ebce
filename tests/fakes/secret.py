"""A secret that a test can change or make unreadable."""

from exporter.core.secret import SecretError


class FakeSecret:
    """Returns ``value``, or raises SecretError if it is None; counts the reads."""

    source = "/etc/cartesia/key"

    def __init__(self, value: str) -> None:
        self.value: str | None = value
        self.reads = 0

    def __call__(self) -> str:
        self.reads += 1
        if self.value is None:
            raise SecretError(f"cannot read {self.source}: no such file")
        return self.value
