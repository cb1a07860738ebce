"""The part of Jinja2 that an operator's template may use, bounded in time and in memory.

Jinja's own sandbox keeps a template away from Python's insides, and no more: ``"x" * 10 ** 9``,
``|center(10 ** 9)`` or loops in loops would stop the agent. So nothing is called or multiplied
here, every text that is made is measured, and every turn of a loop is counted.
"""

import json
import re
import traceback
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, Final

from jinja2 import StrictUndefined, TemplateRuntimeError, TemplateSyntaxError, nodes, pass_context
from jinja2.filters import FILTERS
from jinja2.runtime import Context, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer
from markupsafe import escape

from exporter.core.text import one_line

LONGEST_SOURCE: Final = 16 * 1024
LONGEST_TEXT: Final = 65_536
_STEPS: Final = 1_000_000

_TOO_LONG: Final = (
    f"makes more than {LONGEST_TEXT} characters; use |truncate, or fewer events, as in events[:20]"
)
_TOO_MUCH: Final = "takes too much work; loop over less, or leave something out"
_FILE: Final = "<template>"
_TOKEN: Final = re.compile(r"(?:, got|(?<=unknown tag)) '[^']*'")
_BUDGET: Final = "budget"  # no name that a template may use
_BOUNDED: Final = "bounded "  # with a space, as no filter that a template names
_JOINED: Final = "joined "
_LOOPED: Final = "looped "


class TemplateError(ValueError):
    """A template is not usable or cannot be rendered; the text says where and why."""


class Budget:
    """What one rendering may cost: characters made and nodes evaluated in loops, together."""

    def __init__(self, steps: int = _STEPS) -> None:
        self._left = steps

    def spend(self, steps: int) -> None:
        """Take steps off; raise TemplateError when there are too few left."""
        self._left -= steps
        if self._left < 0:
            raise TemplateError(_TOO_MUCH)


class Template:
    """A text of the operator's, compiled."""

    def __init__(self, source: str, names: Collection[str]) -> None:
        """Compile a text that may use the variables ``names``; TemplateError when it can't be."""
        if len(source) > LONGEST_SOURCE:
            raise TemplateError(f"must be at most {LONGEST_SOURCE} characters long")
        try:
            tree = _parsed(source)
            _check(tree, names)
            self._compiled = _ENVIRONMENT.from_string(_Measured().visit(tree))
        except TemplateSyntaxError as error:
            # A token may be a piece of a password that stands where no quotes are.
            reason = _TOKEN.sub("", one_line(error.message or "", 200))
            raise TemplateError(f"line {error.lineno}: is not valid Jinja2: {reason}") from None
        except (SyntaxError, RecursionError, MemoryError):
            raise TemplateError("is nested too deeply") from None

    def render(self, variables: Mapping[str, Any], budget: Budget) -> str:
        """Return the text; raise TemplateError, with the line, when it can't be made in bounds."""
        try:
            # Piece by piece: one that makes too much text is left before it has made it.
            return "".join(_within(self._compiled.generate({**variables, _BUDGET: budget})))
        except Exception as error:  # noqa: BLE001 - what the operator wrote may raise anything
            raise TemplateError(f"line {_line_of(error)}: {_reason(error)}") from None


def _parsed(source: str) -> nodes.Template:
    try:
        return _ENVIRONMENT.parse(source)
    except ValueError:
        raise TemplateError("holds a number that is too large") from None


def _within(pieces: Iterable[str]) -> Iterator[str]:
    size = 0
    for piece in pieces:
        size += len(piece)
        if size > LONGEST_TEXT:
            raise TemplateError(_TOO_LONG)
        yield piece


def _line_of(error: Exception) -> int:
    frames = traceback.walk_tb(error.__traceback__)
    lines = [line for frame, line in frames if frame.f_code.co_filename == _FILE]
    return lines[-1] if lines else 1


def _reason(error: Exception) -> str:
    """Return why a rendering failed. What Python says may quote a value and is left out."""
    if isinstance(error, TemplateError | TemplateRuntimeError):
        return one_line(str(error), 200)
    return f"cannot be evaluated ({type(error).__name__})"


_ALLOWED: Final = (
    *(nodes.Template, nodes.Output, nodes.TemplateData, nodes.If, nodes.For, nodes.Assign),
    *(nodes.Name, nodes.Const, nodes.List, nodes.Tuple, nodes.Keyword, nodes.Operand),
    *(nodes.Getattr, nodes.Getitem, nodes.Slice, nodes.Filter, nodes.Test, nodes.CondExpr),
    *(nodes.Compare, nodes.And, nodes.Or, nodes.Not, nodes.Neg, nodes.Pos),
    *(nodes.Concat, nodes.Add, nodes.Sub, nodes.Div, nodes.FloorDiv),
)

_INSTEAD: Final[dict[type[nodes.Node], str]] = {
    nodes.Call: "a call; use filters, such as {{ title|upper }}",
    nodes.Mul: "*",
    nodes.Pow: "**",
    nodes.Mod: "%",
    nodes.Dict: "a map in braces",
}


def _check(tree: nodes.Template, names: Collection[str]) -> None:
    """Raise TemplateError at the first thing that a template may not use."""
    assigned = {name.name for name in tree.find_all(nodes.Name) if name.ctx == "store"}
    for node in tree.find_all(nodes.Node):
        problem = _problem(node, [*names, *sorted(assigned)])
        if problem is not None:
            raise TemplateError(f"line {node.lineno or 1}: must not use {problem}")


def _problem(node: nodes.Node, names: Collection[str]) -> str | None:
    if not issubclass(type(node), _ALLOWED):
        return _INSTEAD.get(type(node), type(node).__name__.lower())
    if isinstance(node, nodes.Name) and node.name not in {*names, "loop"}:
        return f'the name "{node.name}"; the names here are {", ".join(names)}'
    if isinstance(node, nodes.Filter) and node.name not in _FILTERS:
        return f'the filter "{node.name}"; the filters here are {", ".join(sorted(_FILTERS))}'
    if isinstance(node, nodes.Filter | nodes.Test) and (node.dyn_args or node.dyn_kwargs):
        return "* or ** before an argument"
    # Lists of lists of lists: a few lines could print as gigabytes.
    if isinstance(node, nodes.List | nodes.Tuple) and getattr(node, "ctx", "load") == "load":
        constant = all(isinstance(item, nodes.Const) for item in node.items)
        return None if constant else "variables in a list"
    return None


class _Measured(NodeTransformer):
    """Rewrites a template so that what makes text, and what repeats, is measured as it happens."""

    def visit_Filter(self, node: nodes.Filter) -> nodes.Expr:  # noqa: N802 - as Jinja calls it
        self.generic_visit(node)
        return _filtered(node, _BOUNDED)

    def visit_Concat(self, node: nodes.Concat) -> nodes.Expr:  # noqa: N802
        self.generic_visit(node)
        joined = _filtered(nodes.List(node.nodes, lineno=node.lineno), _JOINED)
        return _filtered(joined, _BOUNDED)

    def visit_For(self, node: nodes.For) -> nodes.For:  # noqa: N802
        weight = 1 + sum(1 for _ in node.find_all(nodes.Node))
        self.generic_visit(node)
        node.iter = _filtered(node.iter, _LOOPED, nodes.Const(weight, lineno=node.lineno))
        return node


def _filtered(node: nodes.Node, name: str, *arguments: nodes.Expr) -> nodes.Filter:
    return nodes.Filter(node, name, list(arguments), [], None, None, lineno=node.lineno)


def _joined(values: Iterable[Any], separator: str = "") -> str:
    """Return texts joined, as ``join`` and ``~`` do."""
    texts, size = [], 0
    for value in values:
        texts.append(str(_shown(value)))
        size += len(texts[-1]) + len(separator)
        if size > LONGEST_TEXT:
            raise TemplateError(_TOO_LONG)
    return separator.join(texts)


def _replaced(value: Any, old: str, new: str) -> str:
    text = str(_shown(value))
    if len(text) + text.count(old) * len(new) > LONGEST_TEXT:
        raise TemplateError(_TOO_LONG)
    return text.replace(old, new)


def _as_json(value: Any) -> str:
    # No more arguments: an indent may be a gigabyte wide.
    return json.dumps(value, ensure_ascii=False)


def _shown(value: Any) -> Any:
    """Return what is printed of a value: of null nothing, of what is no text an error."""
    if value is None:
        return ""
    if isinstance(value, str | int | float | Undefined):
        return value
    raise TemplateError("prints what is no text; choose a part of it, or use |join or |tojson")


@pass_context
def _bounded(context: Context, value: Any) -> Any:
    """Return what a filter made, measured and, if it is lazy, made."""
    budget: Budget = context[_BUDGET]
    if isinstance(value, str):
        if len(value) > LONGEST_TEXT:
            raise TemplateError(_TOO_LONG)
        budget.spend(len(value))
    elif isinstance(value, Iterator | list):
        made = []
        for item in value:
            budget.spend(1 + (len(item) if isinstance(item, str) else 0))
            made.append(item)
        return made
    return value


@pass_context
def _looped(context: Context, value: Any, weight: int) -> Any:
    """Return what is looped over, paid for: so much for each turn."""
    if isinstance(value, str):
        raise TemplateError("loops over a text")
    if not isinstance(value, Undefined):
        context[_BUDGET].spend(len(value) * weight)
    return value


_PLAIN: Final = (
    *("capitalize", "count", "d", "default", "dictsort", "first", "int", "items", "last", "length"),
    *("list", "lower", "map", "max", "min", "reject", "rejectattr", "reverse", "select"),
    *("selectattr", "sort", "title", "trim", "truncate", "unique", "upper", "urlencode"),
)
"""Filters of Jinja's whose result is hardly longer than what they are given."""

_FILTERS: Final[dict[str, Any]] = {
    **{name: FILTERS[name] for name in _PLAIN},
    "e": lambda value: str(escape(value)),
    "escape": lambda value: str(escape(value)),
    "join": _joined,
    "replace": _replaced,
    "string": lambda value: str(_shown(value)),
    "tojson": _as_json,
}
"""What a template may use; the others of Jinja's make as much text as they are asked for."""


class _Environment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset({"+"})

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:  # noqa: ARG002 - as inherited
        if isinstance(left, str) and isinstance(right, str):
            return _bounded(context, _joined((left, right)))
        if isinstance(left, int | float) and isinstance(right, int | float):
            return left + right
        raise TemplateError("adds what is neither two texts nor two numbers")


def _environment() -> _Environment:
    environment = _Environment(
        undefined=StrictUndefined, finalize=_shown, keep_trailing_newline=True, cache_size=0
    )
    environment.globals.clear()
    environment.filters = {**_FILTERS, _BOUNDED: _bounded, _JOINED: _joined, _LOOPED: _looped}
    return environment


_ENVIRONMENT: Final = _environment()
