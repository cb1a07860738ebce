"""The configuration as it is in force: the file, and the environment where the file is silent."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from yaml.constructor import ConstructorError
from yaml.reader import ReaderError

from exporter.config.errors import ConfigError, Location, Problem, problems_of, texts
from exporter.config.models import DEFAULT_ACCOUNT, Config
from exporter.config.secrets import Origin, os_reason, read_bounded
from exporter.config.types import looks_secret

MAX_FILE_BYTES = 1024 * 1024
_QUOTED = re.compile(r""" ('[^<'][^']+'|"[^<"][^"]+")""")
_HALF = re.compile("[\ud800-\udfff]")
_TAB = repr("\t")
_TIMESTAMP = "tag:yaml.org,2002:timestamp"


class _Loader(yaml.SafeLoader):
    """Plain values only, no key twice, and dates stay text: api_version is one."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()
        # Here and not when values are made: by then merged keys (<<) stand among the others.
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
        # What "\ud83d\ude00" is to YAML, one by one: text that nobody can encode later.
        if isinstance(value, str) and _HALF.search(value):
            problem = "half a character; write it as itself or as \\U with eight digits"
            raise ConstructorError(None, None, problem, node.start_mark)
        return value


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != _TIMESTAMP]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def read(path: Path) -> dict[Any, Any]:
    """Return the mapping in a YAML file, {} for an empty file; ConfigError with one problem."""
    try:
        content = read_bounded(path, MAX_FILE_BYTES)
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read: {os_reason(error)}"]) from None
    return parse(path, content)


def parse(path: Path, content: bytes) -> dict[Any, Any]:
    """Return the mapping in what a YAML file held; see read."""
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
    # A password that starts with * or ! and is not in quotes is an alias or a tag to YAML.
    text = problem or "is not YAML"
    if _TAB in text:
        return "a tab begins this line; indent with spaces"
    if _QUOTED.search(text) is None:
        return text
    return f"{_QUOTED.sub('', text)}; put a text that starts with * or ! in quotes"


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
    draft = _Draft(read(path) if path else {}, environ)
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
