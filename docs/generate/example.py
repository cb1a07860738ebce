"""The keys of config.example.yaml and the comments behind them."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

EXAMPLE = Path(__file__).parent.parent.parent / "config.example.yaml"
_COMMENT = re.compile(r"\s#\s+(?:no default; )?(.*)$")
_KeyPath = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ExampleKey:
    """A key of the example: its path, the type of its receiver (else empty), and its comment."""

    path: _KeyPath
    receiver_type: str
    comment: str


def read_example_keys() -> list[ExampleKey]:
    """Return every key of the example, in its order."""
    text = uncomment(EXAMPLE.read_text(encoding="utf-8"))
    node = yaml.compose(text)
    assert node is not None
    return list(_keys(node, text.splitlines(), (), ""))


def uncomment(text: str) -> str:
    """Return the example with its commented-out keys: `#key` loses its `#`, `# a sentence` not."""
    return re.sub(r"^( *)#(?! \S|$)", r"\1", text, flags=re.MULTILINE)


def _keys(
    node: yaml.Node, lines: list[str], parent: _KeyPath, receiver_type: str
) -> Iterator[ExampleKey]:
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _keys(item, lines, parent, _type_of_receiver(item) or receiver_type)
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            # The comment behind a map on one line is about the map, not about its keys.
            found = None if node.flow_style else _COMMENT.search(lines[key.start_mark.line])
            path = (*parent, key.value)
            yield ExampleKey(path, receiver_type, found.group(1) if found else "")
            yield from _keys(value, lines, path, receiver_type)


def _type_of_receiver(item: yaml.Node) -> str:
    pairs = item.value if isinstance(item, yaml.MappingNode) else ()
    return next((value.value for key, value in pairs if key.value == "type"), "")
