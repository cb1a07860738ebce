"""The types of flags, and the command that is meant when none is named."""

import errno
import math
from typing import Any, Final

import click

_MAX_PORT: Final = 65535


class Commands(click.Group):
    """Commands of which `run` is the one that is meant when only flags are given."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put `run` in front of flags that are not the group's own."""
        # A word that is no flag is left to click: it may be a command, or one misspelt.
        if not args or (args[0].startswith("-") and args[0] not in {"-h", "--help", "--version"}):
            args = ["run", *args]
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; output that cannot be written is an error of one line.

        A pipe that nobody reads any more is left to click, which ends quietly.
        """
        try:
            return super().invoke(ctx)
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise
            raise click.ClickException(f"cannot write the output: {error.strerror}") from None


class Number(click.FloatRange):
    """A number within bounds; `nan` and `inf` are none."""

    def convert(self, value: Any, *context: Any) -> float:
        """Return the number."""
        number: float = super().convert(value, *context)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a number")
        return number


class Address(click.ParamType[tuple[str, int]]):
    """`:10060`, `127.0.0.1:10060`, `[::1]:10060`; port 0 is a free one."""

    name = "[host]:port"

    def convert(self, value: Any, *_: Any) -> tuple[str, int]:
        """Return host and port; an empty host is every address."""
        host, colon, port = str(value).rpartition(":")
        bracketed = host.startswith("[") and host.endswith("]")
        bare = host[1:-1] if bracketed else host
        known = bool(colon) and port.isdecimal() and int(port) <= _MAX_PORT
        if not known or (":" in bare) != bracketed or {*bare} & {*"[]/@ "}:
            self.fail(f"{value!r} is not an address; write :10060, 127.0.0.1:10060 or [::1]:10060")
        return bare, int(port)


class Duration(click.ParamType[float]):
    """A duration as Prometheus writes it: 500ms, 30s, 1h30m."""

    name = "duration"

    def convert(self, value: Any, *_: Any) -> float:
        """Return seconds."""
        if isinstance(value, float):
            return value
        from exporter.config import parse_duration

        try:
            return parse_duration(str(value))
        except ValueError as error:
            self.fail(f"{value!r} {error}")
