"""Secrets and files that the configuration refers to."""

import ssl
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, ValidationInfo

from exporter.config.types import Check, looks_like_secret
from exporter.core.secret import SecretError
from exporter.core.text import os_error_text

MAX_SECRET_BYTES = 64 * 1024
MAX_CA_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class TextSecret:
    """A secret written in the configuration file; ``source`` is its key there."""

    value: str = field(repr=False)
    source: str = field(compare=False)
    check: Check = field(repr=False, compare=False)

    def __call__(self) -> str:
        """Return the stripped text; raise SecretError when it is not acceptable."""
        return _checked(self.value, self.source, self.check)


@dataclass(frozen=True, slots=True)
class FileSecret:
    """A secret in a file of at most 64 KiB, which is read at each call."""

    path: Path
    check: Check = field(repr=False, compare=False)

    @property
    def source(self) -> str:
        """The path of the file."""
        return str(self.path)

    def __call__(self) -> str:
        """Return the file's stripped text; raise SecretError when it cannot be read."""
        try:
            content = read_bounded(self.path, MAX_SECRET_BYTES)
            text = content.decode("utf-8-sig")
        except OSError as error:
            raise SecretError(f"cannot read {self.path}: {file_error_text(error)}") from None
        except UnicodeDecodeError:
            raise SecretError(f"{self.path} is not UTF-8 text") from None
        return _checked(text, self.source, self.check)


@dataclass(frozen=True, slots=True)
class EnvironmentSecret:
    """A secret in an environment variable."""

    variable: str
    environ: Mapping[str, str] = field(repr=False, compare=False)
    check: Check = field(repr=False, compare=False)

    @property
    def source(self) -> str:
        """The variable's name after a dollar sign."""
        return f"${self.variable}"

    def __call__(self) -> str:
        """Return the variable's stripped value; raise SecretError when there is none."""
        if self.variable not in self.environ:
            raise SecretError(f"{self.source} is not set")
        return _checked(self.environ[self.variable], self.source, self.check)


def _checked(text: str, source: str, check: Check) -> str:
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
    """Return the content of a regular file; OSError, also when it is larger than limit bytes."""
    # Checked before opening: opening a pipe without a writer would block for good.
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(0, "not a regular file")
    with path.open("rb") as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise OSError(0, f"larger than {limit // 1024} KiB")
    return content


def file_error_text(error: OSError) -> str:
    """Return why a file cannot be read, in lower case: "no such file", "permission denied"."""
    if isinstance(error, FileNotFoundError):
        return "no such file"
    text = os_error_text(error)
    return text[:1].lower() + text[1:]


@dataclass(frozen=True, slots=True)
class ConfigContext:
    """Pydantic's validation context.

    Attributes:
        folder: the base of relative paths.
        environ: the environment variables.
        read: returns the content of a file; raises OSError, also above that many bytes.
        read_secrets: whether each secret is read once; False for commands that need none.
    """

    folder: Path
    environ: Mapping[str, str] = field(repr=False)
    read: Callable[[Path, int], bytes] = field(default=read_bounded, repr=False)
    read_secrets: bool = True


def context_of(info: ValidationInfo) -> ConfigContext:
    """Return the context given to pydantic, else the working directory and no variables."""
    return info.context if isinstance(info.context, ConfigContext) else ConfigContext(Path(), {})


def to_path(value: object) -> Path:
    """Return text as a path; refuse other values, and a secret given in place of its path."""
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise ValueError("must be the path of a file")
    if looks_like_secret(value):
        raise ValueError("must be the path of a file, not a key or a URL")
    if value[0] == value[-1] and value[0] in "\"'":
        raise ValueError("must not be in quotes; remove them")
    return Path(value)


def _ca_file(value: object, info: ValidationInfo) -> Path:
    context = context_of(info)
    path = context.folder / to_path(value)
    if not context.read_secrets:
        return path
    try:
        read_bounded(path, MAX_CA_BYTES)
        ssl.create_default_context(cafile=path)
    except ssl.SSLError:
        raise ValueError(f"must contain PEM certificates; {path} does not") from None
    except OSError as error:
        raise ValueError(f"cannot read {path}: {file_error_text(error)}") from None
    return path


def _storage_path(value: object) -> Path:
    if isinstance(value, str) and value.strip().startswith(("postgresql://", "postgres://")):
        raise ValueError("must be the path of a file; give a database as storage.url")
    return to_path(value)


StoragePath = Annotated[Path, BeforeValidator(_storage_path)]
CaFile = Annotated[Path, BeforeValidator(_ca_file)]
