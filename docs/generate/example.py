"""What config.example.yaml says of each key: the comment that stands behind it."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

EXAMPLE = Path(__file__).parent.parent.parent / "config.example.yaml"
_COMMENT = re.compile(r"\s#\s+(?:no default; )?(.*)$")
_Place = tuple[str, ...]


def uncommented(text: str) -> str:
    """Return the example as its head says: `#` removed where a key follows, not `# a sentence`."""
    return re.sub(r"^( *)#(?! \S|$)", r"\1", text, flags=re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Said:
    """A key, by the keys above it and its own, and what is said of it.

    ``kind`` is the type of the receiver that it belongs to.
    """

    place: _Place
    kind: str
    meaning: str


def said() -> list[Said]:
    """Return every key of the example, in its order."""
    text = uncommented(EXAMPLE.read_text(encoding="utf-8"))
    node = yaml.compose(text)
    assert node is not None
    return list(_keys(node, text.splitlines(), (), ""))


def _keys(node: yaml.Node, lines: list[str], above: _Place, kind: str) -> Iterator[Said]:
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _keys(item, lines, above, _kind(item))
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            # What a map on one line says is said of the map.
            found = None if node.flow_style else _COMMENT.search(lines[key.start_mark.line])
            place = (*above, key.value)
            yield Said(place, kind, found.group(1) if found else "")
            yield from _keys(value, lines, place, kind)


def _kind(item: yaml.Node) -> str:
    pairs = item.value if isinstance(item, yaml.MappingNode) else ()
    return next((value.value for key, value in pairs if key.value == "type"), "")
