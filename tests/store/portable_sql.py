"""Check that a statement is not of SQLite alone: it compiles for PostgreSQL, and more.

What compiles may still be refused: SQLAlchemy passes unknown functions, negative limits and
parameters without a type on.
"""

from typing import Any

from sqlalchemy import ClauseElement, Connection, Select
from sqlalchemy.dialects import postgresql
from sqlalchemy.sql.elements import BindParameter
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.sql.selectable import CompoundSelect
from sqlalchemy.sql.visitors import iterate
from sqlalchemy.types import NullType

PORTABLE_FUNCTIONS = frozenset({"coalesce", "count", "max", "min", "substr", "sum"})

_DIALECT = postgresql.dialect()
_has_limit: dict[Any, bool] = {}
"""Whether a statement has a LIMIT, by the cache key of each form that was checked."""


def check_statement(
    _connection: Connection | None, statement: Any, _many: Any, _one: Any, _options: Any
) -> None:
    """Raise AssertionError for a statement that PostgreSQL would refuse; a listener of engines."""
    if not isinstance(statement, ClauseElement):
        return
    key = statement._generate_cache_key()
    if key is not None and _has_limit.get(key.key) is False:
        return
    selects = [each for each in iterate(statement) if isinstance(each, Select | CompoundSelect)]
    limits = [each._limit_clause for each in selects if each._limit_clause is not None]
    for limit in limits:
        assert isinstance(limit, BindParameter), statement
        assert limit.value is not None, f"no limit is no LIMIT: {statement}"
        assert limit.value >= 0, f"negative limit: {statement}"
    if key is None or key.key not in _has_limit:
        _check_form(statement)
        if key is not None:
            _has_limit[key.key] = bool(limits)


def _check_form(statement: ClauseElement) -> None:
    if (on_conflict := getattr(statement, "_post_values_clause", None)) is not None:
        on_conflict.constraint_target = None  # all that PostgreSQL's form of the clause has more
    compiled = statement.compile(dialect=_DIALECT)
    for element in iterate(statement):
        if isinstance(element, FunctionElement):
            assert element.name in PORTABLE_FUNCTIONS, f"function {element.name}: {statement}"
    for name, parameter in getattr(compiled, "binds", {}).items():
        assert not isinstance(parameter.type, NullType), f"untyped {name}: {statement}"
