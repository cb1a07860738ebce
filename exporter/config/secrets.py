"""Where secrets and files come from: the file's own text, a file beside it, the environment."""

import re
import ssl
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, ValidationInfo

from exporter.config.types import Check, looks_secret
from exporter.core.secret import SecretError

MAX_SECRET_BYTES = 64 * 1024
MAX_CA_BYTES = 4 * 1024 * 1024
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True)
class Origin:
    """What the values of a configuration refer to: the folder of its file and the environment."""

    folder: Path
    environ: Mapping[str, str] = field(repr=False)


def origin_of(info: ValidationInfo) -> Origin:
    """Return the origin handed to pydantic; without one, this folder and an empty environment."""
    return info.context if isinstance(info.context, Origin) else Origin(Path(), {})


@dataclass(frozen=True, slots=True)
class TextSecret:
    """A secret written in the configuration file; source is its key there."""

    value: str = field(repr=False)
    source: str = field(compare=False)
    check: Check = field(repr=False, compare=False)

    def __call__(self) -> str:
        """Return the stripped text; raise SecretError when it is not acceptable."""
        return _accept(self.value, self.source, self.check)


@dataclass(frozen=True, slots=True)
class FileSecret:
    """A secret in a file, read again at each call, at most 64 KiB."""

    path: Path
    check: Check = field(repr=False, compare=False)

    @property
    def source(self) -> str:
        """The path of the file."""
        return str(self.path)

    def __call__(self) -> str:
        """Return the file's stripped text; raise SecretError when it can't be had."""
        try:
            content = read_bounded(self.path, MAX_SECRET_BYTES)
            text = content.decode("utf-8-sig")
        except OSError as error:
            raise SecretError(f"cannot read {self.path}: {os_reason(error)}") from None
        except UnicodeDecodeError:
            raise SecretError(f"{self.path} is not UTF-8 text") from None
        return _accept(text, self.source, self.check)


@dataclass(frozen=True, slots=True)
class EnvironmentSecret:
    """A secret in an environment variable."""

    variable: str
    environ: Mapping[str, str] = field(repr=False, compare=False)
    check: Check = field(repr=False, compare=False)

    @property
    def source(self) -> str:
        """The variable with a dollar sign."""
        return f"${self.variable}"

    def __call__(self) -> str:
        """Return the variable's stripped value; raise SecretError when it can't be had."""
        if self.variable not in self.environ:
            raise SecretError(f"{self.source} is not set")
        return _accept(self.environ[self.variable], self.source, self.check)


def _accept(text: str, source: str, check: Check) -> str:
    text = text.strip()
    if not text:
        raise SecretError(f"{source} is empty")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise SecretError(f"{source} is not UTF-8 text")
    try:
        check(text)
    except ValueError as error:
        raise SecretError(f"{source} {error}") from None
    return text


def read_bounded(path: Path, limit: int) -> bytes:
    """Return what a regular file holds; OSError when it can't be read or holds over limit bytes."""
    # Asked before opening: opening a pipe that nobody writes to would block for good.
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(0, "not a regular file")
    with path.open("rb") as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise OSError(0, f"larger than {limit // 1024} KiB")
    return content


def os_reason(error: OSError) -> str:
    """Return why the operating system refused, in a few words."""
    if isinstance(error, FileNotFoundError):
        return "no such file"
    reason = error.strerror or type(error).__name__
    return reason[:1].lower() + reason[1:]


def check_path(text: str) -> None:
    """Refuse what cannot be a path, and a secret that stands where its path should."""
    if not text.strip() or not text.isprintable():
        raise ValueError("must be the path of a file")
    if looks_secret(text):
        raise ValueError("must be the path of a file, not a key or a URL")


def check_variable(text: str) -> None:
    """Refuse what cannot be a variable's name, and a secret that stands where its name should."""
    if _VARIABLE.fullmatch(text) is None or looks_secret(text):
        raise ValueError("must be the name of an environment variable")


def _ca_file(value: object, info: ValidationInfo) -> Path:
    if not isinstance(value, str):
        raise ValueError("must be the path of a file")  # noqa: TRY004  # pydantic reports ValueError only
    check_path(value)
    path = origin_of(info).folder / value
    try:
        read_bounded(path, MAX_CA_BYTES)
        ssl.create_default_context(cafile=path)
    except ssl.SSLError:
        raise ValueError(f"must hold PEM certificates; {path} does not") from None
    except OSError as error:
        raise ValueError(f"cannot read {path}: {os_reason(error)}") from None
    return path


CaFile = Annotated[Path, BeforeValidator(_ca_file)]


def _storage_path(value: object) -> Path:
    if not isinstance(value, str):
        raise ValueError("must be the path of a file")  # noqa: TRY004  # pydantic reports ValueError only
    check_path(value)
    return Path(value)


StoragePath = Annotated[Path, BeforeValidator(_storage_path)]
