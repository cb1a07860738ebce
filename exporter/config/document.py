"""A YAML document as plain values, read within fixed bounds, with the line of each value."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml
from yaml.constructor import ConstructorError
from yaml.reader import ReaderError

from exporter.config.errors import ConfigError, Location

MAX_VALUES: Final = 20_000
"""Keys and values of a document, with every use of an alias counted as what it stands for."""

_MAX_DEPTH: Final = 50
_MAX_NUMBER: Final = 64
"""Characters of a number. YAML reads 1:1:1… as a number of base 60, in quadratic time."""

_QUOTED: Final = re.compile(r""" ('[^<'][^']+'|"[^<"][^"]+")""")
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_TAB: Final = repr("\t")
_TAG: Final = "tag:yaml.org,2002:"
_NUMBERS: Final = frozenset({f"{_TAG}int", f"{_TAG}float"})
_TIMESTAMP: Final = f"{_TAG}timestamp"


@dataclass(frozen=True, slots=True)
class Document:
    """The values of a document; {} for an empty one."""

    values: dict[Any, Any] = field(default_factory=dict)
    _root: yaml.Node | None = field(default=None, repr=False)
    _lines: dict[yaml.Node, dict[str, tuple[int, yaml.Node]]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def line_of(self, location: Location) -> int | None:
        """Return the line of a value, or of the innermost value around it that is there.

        None for the document itself. Lines count from 1.
        """
        node, line = self._root, None
        for part in location:
            found = self._child(node, part)
            if found is None:
                break
            line, node = found
        return line

    def _child(self, node: yaml.Node | None, part: int | str) -> tuple[int, yaml.Node] | None:
        """Return the line at which a part of a location begins, and the node of its value."""
        if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            return _line(node.value[part]), node.value[part]
        if not isinstance(node, yaml.MappingNode):
            return None
        if node not in self._lines:
            # Merged keys come first, and the mapping's own ones replace them.
            self._lines[node] = {
                str(key.value): (_line(key), value)
                for key, value in node.value
                if isinstance(key, yaml.ScalarNode)
            }
        return self._lines[node].get(str(part))


def _line(node: yaml.Node) -> int:
    return node.start_mark.line + 1 if node.start_mark else 1


def parse_yaml(path: Path, content: bytes) -> Document:
    """Return the document in the content of a YAML file; raise ConfigError with one problem."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError([f"{path}: is not UTF-8 text (byte {error.start + 1})"]) from None
    try:
        document = _load(text)
    except yaml.MarkedYAMLError as error:
        raise ConfigError([f"{path}: {_place(error)}{_problem(error)}"]) from None
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError([f"{path}: line {line}: a control character; remove it"]) from None
    if not isinstance(document.values, dict):
        raise ConfigError([f"{path}: must be a mapping of keys to values"])
    return document


def _load(text: str) -> Document:
    loader = _Loader(text)
    try:
        root = loader.get_single_node()
        values = None if root is None else loader.construct_document(root)
    finally:
        loader.dispose()
    return Document() if values is None else Document(values, root)


def _place(error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark
    return f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""


def _problem(error: yaml.MarkedYAMLError) -> str:
    problem = error.problem or "is not YAML"
    if _TAB in problem:
        return "a tab begins this line; indent with spaces"
    if _QUOTED.search(problem):
        # To YAML an unquoted password that starts with * or ! is an alias or a tag, which the
        # error quotes.
        return f"{_QUOTED.sub('', problem)}; put a text that starts with * or ! in quotes"
    return problem


class _Loader(yaml.SafeLoader):
    """Reads plain values only, keeps dates as text (see api_version), refuses a repeated key.

    Nodes are counted while they are composed, aliases by what they stand for: neither the
    construction nor a walk through the result can take longer than for MAX_VALUES values.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0
        self._values = 0
        self._sizes: dict[yaml.Node, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event: yaml.Event = self.peek_event()  # type: ignore[no-untyped-call]  # without types
        is_alias = isinstance(event, yaml.AliasEvent)
        before = self._values
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise _error("is nested too deeply", event)
        node = super().compose_node(parent, index)
        assert node is not None  # only an empty document has no node
        self._depth -= 1
        if is_alias and node not in self._sizes:
            raise _error("this alias stands for a value that contains it", event)
        self._values += self._sizes[node] if is_alias else 1
        if self._values > MAX_VALUES:
            raise _error(f"more than {MAX_VALUES:,} values, counting what aliases stand for", event)
        self._sizes.setdefault(node, self._values - before)
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()
        # Not in construct_mapping: it would see merged keys (<<) among the mapping's own.
        for key, _ in node.value:
            name = (key.tag, key.value) if isinstance(key, yaml.ScalarNode) else key
            if name in seen:
                raise _error("this key is given twice", key)
            seen.add(name)
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:  # noqa: FBT001, FBT002  # as inherited
        if node.tag in _NUMBERS and len(node.value) > _MAX_NUMBER:
            raise _error(
                f"a number of more than {_MAX_NUMBER} characters; put text in quotes", node
            )
        try:
            value = super().construct_object(node, deep)
        except yaml.YAMLError:
            raise
        except Exception:  # noqa: BLE001 - PyYAML's constructors raise what their conversions raise
            raise _error("this value does not match its type or its tag", node) from None
        # YAML reads "\ud83d\ude00" as two lone surrogates, which cannot be encoded.
        if isinstance(value, str) and _SURROGATE.search(value):
            raise _error(
                "half of a surrogate pair; write the character itself or \\U with eight digits",
                node,
            )
        return value


def _refuse_tag(_: _Loader, node: yaml.Node) -> None:
    raise _error("this tag is not supported; put a text that starts with ! in quotes", node)


# Only the tags of plain values: those of the others (!!timestamp, !!set, !!binary) make values that
# no key takes.
_Loader.yaml_constructors = {
    f"{_TAG}{name}": yaml.SafeLoader.yaml_constructors[f"{_TAG}{name}"]
    for name in ("null", "bool", "int", "float", "str", "seq", "map")
}
_Loader.add_constructor(None, _refuse_tag)
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != _TIMESTAMP]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _error(problem: str, at: Any) -> ConstructorError:
    """Return an error at the place of a node or an event."""
    return ConstructorError(None, None, problem, at.start_mark)
