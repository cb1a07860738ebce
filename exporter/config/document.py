"""A YAML file as plain values; a mistake in its syntax is told with its line and column."""

import re
from pathlib import Path
from typing import Any

import yaml
from yaml.constructor import ConstructorError
from yaml.reader import ReaderError

from exporter.config.problems import ConfigError
from exporter.config.sources import os_reason, read_bounded

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
