"""Loads the configuration from a YAML file and environment variables."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from exporter.config.environment import (
    ACCOUNT_VARIABLES,
    API_KEY,
    API_KEY_FILE,
    RECEIVER_VARIABLES,
    STORAGE_URL_VARIABLE,
    STORAGE_VARIABLE,
)
from exporter.config.errors import (
    ConfigError,
    Location,
    Places,
    Problem,
    problem_texts,
    problems_of,
)
from exporter.config.models import DEFAULT_ACCOUNT, Config
from exporter.config.secrets import ConfigContext, file_error_text, read_bounded
from exporter.config.types import looks_like_secret
from exporter.config.warnings import find_warnings

_MAX_FILE_BYTES = 1024 * 1024


@dataclass
class _RawConfig:
    """The values before validation; ``names`` has the variables that some of them come from."""

    values: dict[Any, Any]
    environ: Mapping[str, str]
    names: dict[Location, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


def load(path: Path | None, environ: Mapping[str, str], *, read_secrets: bool = True) -> Config:
    """Return the configuration of a file, or of the environment alone when path is None.

    Variables are used where the file has no accounts, no receivers, or neither storage.path nor
    storage.url; an empty variable counts as unset. Each secret has been read once when this
    returns, unless ``read_secrets`` is False: then none is read, and
    there are no warnings.

    Raises:
        ConfigError: with a text for every mistake, none of which contains a secret.
    """
    values, line_of = _read_document(path)
    raw = _RawConfig(values, environ)
    _add_account(raw)
    _add_receivers(raw)
    _add_storage(raw)
    folder = path.absolute().parent if path else Path.cwd()
    context = ConfigContext(folder, environ, read_secrets=read_secrets)
    try:
        config = Config.model_validate(raw.values, context=context)
    except ValidationError as error:
        raw.problems += problems_of(error)
    if raw.problems:
        places = Places(raw.values, line_of, raw.names)
        raise ConfigError(problem_texts(raw.problems, places)) from None
    config.set_secret_sources()
    if read_secrets:
        config.set_warnings(find_warnings(config, environ, frozenset(raw.names.values())))
    return config


def _read_document(path: Path | None) -> tuple[dict[Any, Any], Callable[[Location], int | None]]:
    """Return the values of a file, and the function that returns their lines."""
    if path is None:
        return {}, lambda _: None
    from exporter.config.document import parse_yaml  # noqa: PLC0415 - imports PyYAML

    document = parse_yaml(path, read_file(path))
    return document.values, document.line_of


def _add_account(raw: _RawConfig) -> None:
    environ = raw.environ
    key_file = environ.get(API_KEY_FILE)
    if raw.values.get("accounts") is not None or not (environ.get(API_KEY) or key_file):
        return
    account = {"name": DEFAULT_ACCOUNT}
    if environ.get(API_KEY):
        account["api_key_env"] = API_KEY
    elif key_file:
        # Relative to the working directory, while paths in the file are relative to the file. A
        # text that is no path is refused later.
        path = key_file if looks_like_secret(key_file) else str(Path.cwd() / key_file)
        account["api_key_file"] = path
    for key, variable in ACCOUNT_VARIABLES.items():
        if environ.get(variable):
            account[key] = environ[variable]
    raw.values["accounts"] = [account]
    variables = {"api_key_env": API_KEY, "api_key_file": API_KEY_FILE, **ACCOUNT_VARIABLES}
    raw.names |= {("accounts", 0, key): f"${name}" for key, name in variables.items()}
    if environ.get(API_KEY) and key_file:
        text = f"is set together with ${API_KEY}; unset one of them"
        raw.problems.append((("accounts", 0, "api_key_file"), text))


def _add_receivers(raw: _RawConfig) -> None:
    if raw.values.get("receivers") is not None:
        return
    given = {each: name for each, name in RECEIVER_VARIABLES.items() if raw.environ.get(name)}
    raw.values["receivers"] = [
        {"name": receiver_type, "type": receiver_type, "url_env": variable}
        for receiver_type, variable in given.items()
    ]
    for index, variable in enumerate(given.values()):
        raw.names["receivers", index, "url_env"] = f"${variable}"


def _add_storage(raw: _RawConfig) -> None:
    storage = raw.values.get("storage") or {}
    keys = ("path", "url", "url_file", "url_env")
    if not isinstance(storage, dict) or any(storage.get(key) is not None for key in keys):
        return
    # The URL comes first: images set the path.
    if raw.environ.get(STORAGE_URL_VARIABLE):
        raw.values["storage"] = {**storage, "url_env": STORAGE_URL_VARIABLE}
        raw.names["storage", "url_env"] = f"${STORAGE_URL_VARIABLE}"
    elif path := raw.environ.get(STORAGE_VARIABLE):
        raw.values["storage"] = {**storage, "path": path}
        raw.names["storage", "path"] = f"${STORAGE_VARIABLE}"


def read_file(path: Path, read: Callable[[Path, int], bytes] = read_bounded) -> bytes:
    """Return the content of a YAML file; raise ConfigError with one problem."""
    try:
        return read(path, _MAX_FILE_BYTES)
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read: {file_error_text(error)}"]) from None
