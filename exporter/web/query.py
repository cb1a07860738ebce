"""Query parameters of the pages and of the JSON API."""

from collections.abc import Mapping
from typing import Any, Final, cast
from urllib.parse import urlencode

from msgspec import Struct
from msgspec.structs import replace
from starlette.datastructures import QueryParams

from exporter.core.events import EVENT_TYPES
from exporter.core.records import DeliveryState
from exporter.core.text import format_duration, parse_duration
from exporter.store.fine_tunes import SORTS, Sort
from exporter.store.pages import PageRequest

MOST_ELEMENTS: Final = 100
DEFAULT_ELEMENTS: Final = 20
LONGEST_TEXT: Final = 200
LONGEST_ID: Final = 60_000
"""Ids that the lists name themselves; the server bounds the whole URL."""

_BOOLEANS: Final = {"true": True, "false": False}
_IDS: Final = frozenset({"starting_after", "after_account", "fine_tune"})
_MOST_VALUES: Final = 20

DELIVERY_STATES: Final[tuple[DeliveryState, ...]] = (
    "pending",
    "muted",
    "delivered",
    "dead",
    "discarded",
    "orphaned",
)

EVENT_WORDS: Final[Mapping[str, tuple[str, ...]]] = {
    **{each.rpartition(".")[2]: (each,) for each in EVENT_TYPES if each.startswith("fine_tune.")},
    "agent": tuple(each for each in EVENT_TYPES if each.startswith("agent.")),
}
"""Words of the parameter ``type`` beside the full types of events, with what they stand for."""


class QueryError(Exception):
    """A query parameter has an invalid value; the text names it and says what is allowed."""


class Query(Struct, frozen=True):
    """The parameters that lists take; None and empty match all.

    ``since`` is a length of time in seconds, ending now. ``after_account`` is the account of the
    element with the id ``starting_after``. ``added`` is the id of a mute that was added just now.
    """

    account: str | None = None
    status: tuple[str, ...] = ()
    model_id: str | None = None
    dataset: str | None = None
    q: str = ""
    since: float | None = None
    receiver: str | None = None
    state: tuple[str, ...] = ()
    type: tuple[str, ...] = ()
    fine_tune: str | None = None
    active: bool | None = None
    added: str | None = None
    sort: Sort = "-since"
    limit: int = DEFAULT_ELEMENTS
    starting_after: str | None = None
    after_account: str | None = None

    @property
    def page(self) -> PageRequest:
        """The page that is asked for."""
        return PageRequest(self.limit, self.starting_after, self.after_account or self.account)

    @property
    def event_types(self) -> tuple[str, ...]:
        """The types of events that ``type`` stands for."""
        return tuple(t for each in self.type for t in EVENT_WORDS.get(each, (each,)))

    def url(self, path: str, **changes: Any) -> str:
        """Return the URL of a list with these parameters and ``changes``.

        It is the first page unless ``changes`` name the element after which a page begins.
        """
        first: dict[str, Any] = {"starting_after": None, "after_account": None}
        changed = replace(self, **first | changes)
        pairs = [
            (name, value)
            for name in (
                "account",
                "status",
                "model_id",
                "dataset",
                "q",
                "receiver",
                "state",
                "type",
                "starting_after",
                "after_account",
            )
            for value in _values(getattr(changed, name))
            if value
        ]
        if changed.since is not None:
            pairs.append(("since", format_duration(changed.since)))
        if changed.sort != "-since":
            pairs.append(("sort", changed.sort))
        return f"{path}?{urlencode(pairs)}" if pairs else path


def _values(value: str | tuple[str, ...] | None) -> tuple[str, ...]:
    if value is None:
        return ()
    return (value,) if isinstance(value, str) else value


def parse(parameters: QueryParams, allowed: frozenset[str]) -> Query:
    """Return the query of a request. An empty value is as none.

    Raises QueryError for a parameter that is not in ``allowed``, for one that is given twice but
    takes one value, and for an invalid value.
    """
    found: dict[str, Any] = {}
    for name in dict.fromkeys(parameters):
        if name not in allowed:
            raise QueryError(f"there is no parameter {name!r}; there are {_listed(allowed)}")
        values = tuple(each for each in parameters.getlist(name) if each)
        if not values:
            continue
        most = LONGEST_ID if name in _IDS else LONGEST_TEXT
        if any(len(each) > most for each in values):
            raise QueryError(f"{name} has more than {most} characters")
        if name in {"status", "state", "type"}:
            if len(values) > _MOST_VALUES:
                raise QueryError(f"{name} is given more than {_MOST_VALUES} times")
            found[name] = values
        elif len(values) > 1:
            raise QueryError(f"{name} is given {len(values)} times; it takes one value")
        else:
            found[name] = values[0]
    return Query(**_checked(found))


def _checked(found: dict[str, Any]) -> dict[str, Any]:
    if "limit" in found:
        found["limit"] = _limit(found["limit"])
    if "since" in found:
        try:
            found["since"] = parse_duration(found["since"])
        except ValueError as error:
            raise QueryError(f"since {error}") from None
    if found.get("sort", SORTS[0]) not in SORTS:
        raise QueryError(f"sort is one of {_listed(SORTS)}")
    if "active" in found:
        if found["active"] not in _BOOLEANS:
            raise QueryError(f"active is one of {_listed(_BOOLEANS)}")
        found["active"] = _BOOLEANS[found["active"]]
    _check_words(found, "state", DELIVERY_STATES)
    _check_words(found, "type", (*EVENT_WORDS, *EVENT_TYPES))
    return found


def _limit(text: str) -> int:
    # isascii: int() also reads other digits, signs and underscores.
    number = int(text) if text.isascii() and text.isdigit() else 0
    if not 1 <= number <= MOST_ELEMENTS:
        raise QueryError(f"limit is a number from 1 to {MOST_ELEMENTS}")
    return number


def _check_words(found: Mapping[str, Any], name: str, words: tuple[str, ...]) -> None:
    for each in cast(tuple[str, ...], found.get(name, ())):
        if each not in words:
            raise QueryError(f"{name} is one of {_listed(words)}")


def _listed(words: Any) -> str:
    return ", ".join(sorted(words))
