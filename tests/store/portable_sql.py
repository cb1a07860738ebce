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
_checked: set[Any] = set()


def check_statement(
    _connection: Connection | None, statement: Any, _many: Any, _one: Any, _options: Any
) -> None:
    """Raise AssertionError for a statement that PostgreSQL would refuse; a listener of engines."""
    if not isinstance(statement, ClauseElement):
        return
    for element in iterate(statement):
        if isinstance(element, Select | CompoundSelect) and element._limit_clause is not None:
            limit = element._limit_clause
            assert isinstance(limit, BindParameter), statement
            assert limit.value is not None, f"no limit is no LIMIT: {statement}"
            assert limit.value >= 0, f"negative limit: {statement}"
    key = statement._generate_cache_key()
    if key is None or key.key not in _checked:
        _check_form(statement)
        if key is not None:
            _checked.add(key.key)


def _check_form(statement: ClauseElement) -> None:
    if (on_conflict := getattr(statement, "_post_values_clause", None)) is not None:
        on_conflict.constraint_target = None  # all that PostgreSQL's form of the clause has more
    compiled = statement.compile(dialect=_DIALECT)
    for element in iterate(statement):
        if isinstance(element, FunctionElement):
            assert element.name in PORTABLE_FUNCTIONS, f"function {element.name}: {statement}"
    for name, parameter in getattr(compiled, "binds", {}).items():
        assert not isinstance(parameter.type, NullType), f"untyped {name}: {statement}"
