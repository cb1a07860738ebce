"""Pages of lists: a limit, and the element after which a page begins."""

from collections.abc import Sequence
from typing import Any, Generic, TypeVar

from msgspec import Struct
from sqlalchemy import ColumnElement, Select, and_, literal, or_

_Element = TypeVar("_Element")


class UnknownCursorError(Exception):
    """``starting_after`` names no element of the list."""


class AmbiguousCursorError(Exception):
    """``starting_after`` names elements of several accounts."""


class PageRequest(Struct, frozen=True):
    """At most ``limit`` elements after the one with the id ``starting_after``.

    ``account`` tells apart two elements of different accounts with the same id.
    """

    limit: int = 20
    starting_after: str | None = None
    account: str | None = None


class Page(Struct, Generic[_Element], frozen=True):
    """Elements of one page, and whether more follow."""

    elements: list[_Element]
    has_more: bool


def page_of(rows: Sequence[_Element], limit: int) -> Page[_Element]:
    """Return the page of rows that were selected with one more than ``limit``."""
    return Page(list(rows[:limit]), len(rows) > limit)


def after(
    query: Select[Any], keys: Sequence[tuple[ColumnElement[Any], bool]], values: Sequence[Any]
) -> Select[Any]:
    """Return ``query`` for the rows that follow ``values`` in the order of ``keys``.

    Each key is a column and whether it descends. Both engines use an index for this form.
    """
    alternatives = []
    for position, (column, descends) in enumerate(keys):
        bound = literal(values[position], column.type)
        equal = [
            c == literal(v, c.type) for (c, _), v in zip(keys[:position], values, strict=False)
        ]
        alternatives.append(and_(*equal, column < bound if descends else column > bound))
    return query.where(or_(*alternatives))
