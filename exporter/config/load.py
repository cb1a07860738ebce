"""Loads the configuration from a YAML file and environment variables."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from yaml.constructor import ConstructorError
from yaml.reader import ReaderError

from exporter.config.errors import ConfigError, Location, Problem, problem_texts, problems_of
from exporter.config.models import DEFAULT_ACCOUNT, Config
from exporter.config.secrets import ConfigContext, file_error_text, read_bounded
from exporter.config.types import looks_like_secret

MAX_FILE_BYTES = 1024 * 1024

_API_KEY = "CARTESIA_API_KEY"
_API_KEY_FILE = "CARTESIA_API_KEY_FILE"
_ACCOUNT_VARIABLES = {"base_url": "CARTESIA_BASE_URL", "api_version": "CARTESIA_VERSION"}
_RECEIVER_VARIABLES = {
    "slack": "CARTESIA_EXPORTER_SLACK_URL",
    "webhook": "CARTESIA_EXPORTER_WEBHOOK_URL",
}
_STORAGE_VARIABLE = "CARTESIA_EXPORTER_STORAGE_PATH"

_QUOTED = re.compile(r""" ('[^<'][^']+'|"[^<"][^"]+")""")
_SURROGATE = re.compile("[\ud800-\udfff]")
_TAB = repr("\t")
_TIMESTAMP = "tag:yaml.org,2002:timestamp"


@dataclass
class _RawConfig:
    """The values before validation; ``names`` has the variables that some of them come from."""

    values: dict[Any, Any]
    environ: Mapping[str, str]
    names: dict[Location, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def absent(self, key: str) -> bool:
        return self.values.get(key) is None


def load(path: Path | None, environ: Mapping[str, str]) -> Config:
    """Return the configuration of a file, or of the environment alone when path is None.

    Variables are used where the file has no accounts, no receivers or no storage.path; an empty
    variable counts as unset. Each secret has been read once when this returns.

    Raises:
        ConfigError: with a text for every mistake, none of which contains a secret.
    """
    raw = _RawConfig(read_yaml(path) if path else {}, environ)
    _add_account(raw)
    _add_receivers(raw)
    _add_storage(raw)
    context = ConfigContext(path.absolute().parent if path else Path.cwd(), environ)
    try:
        config = Config.model_validate(raw.values, context=context)
    except ValidationError as error:
        raw.problems += problems_of(error)
    if raw.problems:
        raise ConfigError(problem_texts(raw.problems, raw.names)) from None
    config.set_secret_sources()
    return config


def _add_account(raw: _RawConfig) -> None:
    environ = raw.environ
    if not raw.absent("accounts") or not (environ.get(_API_KEY) or environ.get(_API_KEY_FILE)):
        return
    account = {"name": DEFAULT_ACCOUNT}
    if environ.get(_API_KEY):
        account["api_key_env"] = _API_KEY
    else:
        account["api_key_file"] = _from_working_directory(environ[_API_KEY_FILE])
    for key, variable in _ACCOUNT_VARIABLES.items():
        if environ.get(variable):
            account[key] = environ[variable]
    raw.values["accounts"] = [account]
    variables = {"api_key_env": _API_KEY, "api_key_file": _API_KEY_FILE, **_ACCOUNT_VARIABLES}
    raw.names |= {("accounts", 0, key): f"${name}" for key, name in variables.items()}
    if environ.get(_API_KEY) and environ.get(_API_KEY_FILE):
        text = f"is set together with ${_API_KEY}; unset one of them"
        raw.problems.append((("accounts", 0, "api_key_file"), text))


def _from_working_directory(path: str) -> str:
    # Not relative to the file, as paths in the file are. A text that is no path is refused later.
    return path if looks_like_secret(path) else str(Path.cwd() / path)


def _add_receivers(raw: _RawConfig) -> None:
    if not raw.absent("receivers"):
        return
    given = {each: name for each, name in _RECEIVER_VARIABLES.items() if raw.environ.get(name)}
    raw.values["receivers"] = [
        {"name": receiver_type, "type": receiver_type, "url_env": variable}
        for receiver_type, variable in given.items()
    ]
    for index, variable in enumerate(given.values()):
        raw.names["receivers", index, "url_env"] = f"${variable}"


def _add_storage(raw: _RawConfig) -> None:
    variable = raw.environ.get(_STORAGE_VARIABLE)
    storage = raw.values.get("storage") or {}
    if variable and isinstance(storage, dict) and storage.get("path") is None:
        raw.values["storage"] = {**storage, "path": variable}
        raw.names["storage", "path"] = f"${_STORAGE_VARIABLE}"


class _Loader(yaml.SafeLoader):
    """Reads plain values only, refuses a repeated key, and keeps dates as text: see api_version."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()
        # Not in construct_mapping: it would see merged keys (<<) among the mapping's own.
        for key, _ in node.value:
            name = (key.tag, key.value) if isinstance(key, yaml.ScalarNode) else key
            if name in seen:
                raise ConstructorError(None, None, "this key is given twice", key.start_mark)
            seen.add(name)
        return node

    def construct_object(self, node: Any, deep: bool = False) -> Any:  # noqa: FBT001, FBT002  # as inherited
        try:
            value = super().construct_object(node, deep)
        except (ValueError, LookupError):
            problem = "this value is not what its form or its tag says"
            raise ConstructorError(None, None, problem, node.start_mark) from None
        # YAML reads "\ud83d\ude00" as two lone surrogates, which cannot be encoded.
        if isinstance(value, str) and _SURROGATE.search(value):
            problem = "half a character; write it as itself or as \\U with eight digits"
            raise ConstructorError(None, None, problem, node.start_mark)
        return value


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != _TIMESTAMP]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def read_yaml(path: Path) -> dict[Any, Any]:
    """Return the mapping in a YAML file, {} for an empty file.

    Raises ConfigError with one problem.
    """
    try:
        content = read_bounded(path, MAX_FILE_BYTES)
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read: {file_error_text(error)}"]) from None
    return parse_yaml(path, content)


def parse_yaml(path: Path, content: bytes) -> dict[Any, Any]:
    """Return the mapping in the content of a YAML file; see read_yaml."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError([f"{path}: is not UTF-8 text (byte {error.start + 1})"]) from None
    document = _parse(path, text)
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise ConfigError([f"{path}: must be a mapping of keys to values"])
    return document


def _parse(path: Path, text: str) -> Any:
    try:
        return yaml.load(text, _Loader)  # noqa: S506  # a subclass of SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise ConfigError([f"{path}: {place}{_without_quotes(error.problem)}"]) from None
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError([f"{path}: line {line}: a control character; remove it"]) from None
    except RecursionError:
        raise ConfigError([f"{path}: is nested too deeply"]) from None


def _without_quotes(problem: str | None) -> str:
    # To YAML an unquoted password that starts with * or ! is an alias or a tag, which the error
    # would quote.
    text = problem or "is not YAML"
    if _TAB in text:
        return "a tab begins this line; indent with spaces"
    if _QUOTED.search(text) is None:
        return text
    return f"{_QUOTED.sub('', text)}; put a text that starts with * or ! in quotes"
