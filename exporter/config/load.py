"""The configuration as it is in force: the file, and the environment where the file is silent."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from exporter.config import document
from exporter.config.models import DEFAULT_ACCOUNT, Config
from exporter.config.problems import ConfigError, Location, Problem, problems_of, texts
from exporter.config.sources import Origin
from exporter.config.values import looks_secret

_API_KEY = "CARTESIA_API_KEY"
_API_KEY_FILE = "CARTESIA_API_KEY_FILE"
_ACCOUNT_VARIABLES = {"base_url": "CARTESIA_BASE_URL", "api_version": "CARTESIA_VERSION"}
_RECEIVER_VARIABLES = {
    "slack": "CARTESIA_EXPORTER_SLACK_URL",
    "webhook": "CARTESIA_EXPORTER_WEBHOOK_URL",
}
_STORAGE_VARIABLE = "CARTESIA_EXPORTER_STORAGE_PATH"


@dataclass
class _Draft:
    """The configuration's raw values, and which of them came from a variable."""

    values: dict[Any, Any]
    environ: Mapping[str, str]
    names: dict[Location, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def absent(self, key: str) -> bool:
        return self.values.get(key) is None


def load(path: Path | None, environ: Mapping[str, str]) -> Config:
    """Return the configuration of a file, or of the environment alone when path is None.

    Where the file has no accounts, no receivers or no storage.path, variables take their place;
    an empty variable counts as unset. Each secret has been read once when this returns.

    Raises:
        ConfigError: with every mistake found; none of its texts holds a secret.
    """
    draft = _Draft(document.read(path) if path else {}, environ)
    _add_account(draft)
    _add_receivers(draft)
    _add_storage(draft)
    origin = Origin(path.absolute().parent if path else Path.cwd(), environ)
    try:
        config = Config.model_validate(draft.values, context=origin)
    except ValidationError as error:
        draft.problems += problems_of(error)
    if draft.problems:
        raise ConfigError(texts(draft.problems, draft.names)) from None
    config.place("")
    return config


def _add_account(draft: _Draft) -> None:
    environ = draft.environ
    if not draft.absent("accounts") or not (environ.get(_API_KEY) or environ.get(_API_KEY_FILE)):
        return
    account = {"name": DEFAULT_ACCOUNT}
    if environ.get(_API_KEY):
        account["api_key_env"] = _API_KEY
    else:
        account["api_key_file"] = _from_working_directory(environ[_API_KEY_FILE])
    for key, variable in _ACCOUNT_VARIABLES.items():
        if environ.get(variable):
            account[key] = environ[variable]
    draft.values["accounts"] = [account]
    variables = {"api_key_env": _API_KEY, "api_key_file": _API_KEY_FILE, **_ACCOUNT_VARIABLES}
    draft.names |= {("accounts", 0, key): f"${name}" for key, name in variables.items()}
    if environ.get(_API_KEY) and environ.get(_API_KEY_FILE):
        text = f"is set together with ${_API_KEY}; unset one of them"
        draft.problems.append((("accounts", 0, "api_key_file"), text))


def _from_working_directory(path: str) -> str:
    # Not beside the file, as its own paths. What is no path stays as it is, to be refused as such.
    return path if looks_secret(path) else str(Path.cwd() / path)


def _add_receivers(draft: _Draft) -> None:
    if not draft.absent("receivers"):
        return
    given = {kind: name for kind, name in _RECEIVER_VARIABLES.items() if draft.environ.get(name)}
    draft.values["receivers"] = [
        {"name": kind, "type": kind, "url_env": variable} for kind, variable in given.items()
    ]
    for index, variable in enumerate(given.values()):
        draft.names["receivers", index, "url_env"] = f"${variable}"


def _add_storage(draft: _Draft) -> None:
    variable = draft.environ.get(_STORAGE_VARIABLE)
    storage = draft.values.get("storage") or {}
    if variable and isinstance(storage, dict) and storage.get("path") is None:
        draft.values["storage"] = {**storage, "path": variable}
        draft.names["storage", "path"] = f"${_STORAGE_VARIABLE}"
