"""A secret that a test can rotate and make unreadable."""

from exporter.core.secret import SecretError


class FakeSecret:
    """Counts how often it is read."""

    source = "/etc/cartesia/key"

    def __init__(self, value: str) -> None:
        self.value: str | None = value
        self.reads = 0

    def __call__(self) -> str:
        self.reads += 1
        if self.value is None:
            raise SecretError(f"cannot read {self.source}: no such file")
        return self.value
