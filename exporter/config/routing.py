"""Problems of how events are routed that concern several sections of the file."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from exporter.config.errors import MAX_PROBLEMS, Location, Problem, suggest
from exporter.core.match import LABEL_KEY, LABEL_PREFIX

_LISTED: Final = 5
"""Labels that an error lists."""

_MOST_LABELS: Final = 100
"""Labels that an unknown one is compared with: thousands would take seconds."""


def routing_problems(given: Mapping[Any, Any]) -> Iterator[Problem]:
    """Yield the problems of a file's values: unknown labels, and ``otherwise`` without another."""
    receivers = list(_maps_of(given, "receivers"))
    if all(receiver.get("otherwise") is True for _, receiver in receivers):
        for index, _ in receivers:
            text = "needs a receiver without it: it takes what no other receiver takes"
            yield ("receivers", index, "otherwise"), text
    labels = dict.fromkeys(_labels_of(given))
    named = list(labels)[:_MOST_LABELS]
    for number, location in enumerate(_label_keys(receivers)):
        name = str(location[-1]).removeprefix(LABEL_PREFIX)
        if name not in labels:
            yield location, _unknown_label(name, named, suggests=number < MAX_PROBLEMS)


def _unknown_label(name: str, labels: list[str], *, suggests: bool) -> str:
    if not labels:
        return "must be a label of an account, and no account has labels"
    similar = suggest(name, labels) if suggests else ""
    listed = ", ".join(labels[:_LISTED]) + (", …" if labels[_LISTED:] else "")
    return f"must be a label of an account{similar or f'; these are {listed}'}"


def _labels_of(given: Mapping[Any, Any]) -> Iterator[str]:
    for _, account in _maps_of(given, "accounts"):
        labels = account.get("labels")
        yield from map(str, labels if isinstance(labels, dict) else ())


def _label_keys(receivers: list[tuple[int, dict[Any, Any]]]) -> Iterator[Location]:
    """Yield the locations of the labels in each ``match``."""
    for index, receiver in receivers:
        path = ("receivers", index)
        yield from _label_keys_in(receiver, path)
        for number, rule in _maps_of(receiver, "mentions"):
            yield from _label_keys_in(rule, (*path, "mentions", number))


def _label_keys_in(section: Mapping[Any, Any], path: Location) -> Iterator[Location]:
    match = section.get("match")
    for key, pattern in match.items() if isinstance(match, dict) else ():
        if pattern is not None and isinstance(key, str) and LABEL_KEY.fullmatch(key):
            yield (*path, "match", key)


def _maps_of(section: Mapping[Any, Any], key: str) -> Iterator[tuple[int, dict[Any, Any]]]:
    """Yield each mapping in the list of a key, with its index."""
    items = section.get(key)
    for index, item in enumerate(items if isinstance(items, list) else ()):
        if isinstance(item, dict):
            yield index, item
