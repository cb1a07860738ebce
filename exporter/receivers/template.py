"""Operators' templates: the body of a webhook, and the first line of a Slack message.

docs/webhook.md lists the names and the filters that a template may use. What a template may cost
is bounded before it is compiled: by its length, the depth of its loops and the operations in them.
While it is rendered, each text, each list and the output are bounded in size.
"""

import json
import re
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import wraps
from typing import Any, Final

from jinja2 import StrictUndefined, TemplateRuntimeError, TemplateSyntaxError, nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.filters import FILTERS
from jinja2.runtime import Context, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from markupsafe import escape

from exporter.core.message import Message
from exporter.core.text import LONGEST, one_line
from exporter.receivers.payload import MOST_EVENTS, NAMES, standard_body, variables
from exporter.receivers.receiver import encoded

LONGEST_SOURCE: Final = 16 * 1024
LONGEST_TEXT: Final = 65_536
_LONGEST_LIST: Final = MOST_EVENTS
_LONGEST_BODY: Final = 512 * 1024

MOST_WORK: Final = 300_000
"""The most that the templates of one body may cost; evaluating a name costs 1.

Measured: the worst template within it ran for 5 s, usual ones for milliseconds.
"""

_OPERATION_WORK: Final = 20
_SLOW_WORK: Final = 1_000
_SLOW_FILTERS: Final = frozenset(
    ("map", "reject", "rejectattr", "select", "selectattr", "sort", "title", "unique", "urlencode")
)
"""They take milliseconds for the longest text or list, the other operations at most 0.3 ms."""

_TOO_LONG: Final = (
    f"makes more than {LONGEST_TEXT} characters; use |truncate, or fewer events, as in events[:20]"
)
_TOO_MUCH: Final = "takes too much work; loop over less, or leave something out"

Path = tuple[str | int, ...]


class TemplateError(ValueError):
    """A template is not usable or cannot be rendered; the text says where and why."""


class Template:
    """A compiled template of one text; ``work`` is the most that rendering it costs."""

    def __init__(self, source: str) -> None:
        """Compile a text; raise TemplateError when it is not a template within the bounds."""
        if len(source) > LONGEST_SOURCE:
            raise TemplateError(f"must be at most {LONGEST_SOURCE} characters long")
        try:
            tree = _ENVIRONMENT.parse(source)
            # Before compiling: the code generator evaluates constant expressions.
            self.work = _check(tree)
            self._compiled = _ENVIRONMENT.from_string(tree)
        except TemplateSyntaxError as error:
            # A token can be a piece of a password.
            reason = re.sub(
                r"(?:, got|(?<=unknown tag)) '[^']*'", "", one_line(error.message or "", 200)
            )
            raise TemplateError(f"line {error.lineno}: is not valid Jinja2: {reason}") from None
        except (SyntaxError, RecursionError, MemoryError):
            raise TemplateError("is nested too deeply") from None
        except TemplateError:
            raise
        except ValueError:
            raise TemplateError("holds a number that is too large") from None

    def render(self, variables: Mapping[str, Any]) -> str:
        """Return the text; raise TemplateError, with the line, if it cannot be rendered."""
        try:
            # Piece by piece, so that an output that is too long is never built in whole.
            return _join(self._compiled.generate(variables))
        except Exception as error:  # noqa: BLE001 - a template can raise anything
            raise TemplateError(f"line {_line_of(error)}: {_reason(error)}") from None


def _line_of(error: Exception) -> int:
    frames = traceback.walk_tb(error.__traceback__)
    lines = [line for frame, line in frames if frame.f_code.co_filename == "<template>"]
    return lines[-1] if lines else 1


def _reason(error: Exception) -> str:
    """Return why a rendering failed. Python's own texts are left out: they may quote a value."""
    if isinstance(error, TemplateError | TemplateRuntimeError):
        return one_line(str(error), 200)
    return f"cannot be evaluated ({type(error).__name__})"


class TemplateBody:
    """A webhook's body: the operator's map with its texts rendered; other values are kept."""

    def __init__(self, template: Mapping[str, Any]) -> None:
        """Compile the texts of a map of JSON's types; raise TemplateError when one can't be."""
        texts: list[Template] = []

        def compiled(source: str) -> Template:
            texts.append(Template(source))
            return texts[-1]

        self._template = _map_texts(template, compiled)
        if sum(text.work for text in texts) > MOST_WORK:
            raise TemplateError(_TOO_MUCH)

    def __call__(self, message: Message, *, minimal: bool) -> bytes:
        """Return the map as JSON; raise TemplateError when it can't be rendered within bounds.

        The minimal form never raises: it is the map without what people wrote or, when not even
        that can be rendered, the standard body.
        """
        if not minimal:
            return self._render(variables(message))
        try:
            return self._render(variables(message, minimal=True))
        except TemplateError:
            return standard_body(message, minimal=True)

    def _render(self, found: Mapping[str, Any]) -> bytes:
        body = encoded(_map_texts(self._template, lambda template: template.render(found)))
        if len(body) > _LONGEST_BODY:
            raise TemplateError(f"makes a body of more than {_LONGEST_BODY // 1024} KiB")
        return body


def _map_texts(value: Any, change: Callable[[Any], Any], path: Path = ()) -> Any:
    """Return a copy of a map or a list in which each text, or template, is changed.

    A TemplateError gets the path of the text.
    """
    if isinstance(value, Mapping):
        return {key: _map_texts(item, change, (*path, key)) for key, item in value.items()}
    if isinstance(value, list):
        return [_map_texts(item, change, (*path, n)) for n, item in enumerate(value)]
    if not isinstance(value, str | Template):
        return value
    try:
        return change(value)
    except TemplateError as error:
        raise TemplateError(f"{'.'.join(map(str, path))}: {error}") from None


_ALLOWED: Final = (
    *(nodes.Template, nodes.Output, nodes.TemplateData, nodes.If, nodes.For, nodes.Assign),
    *(nodes.Name, nodes.Const, nodes.List, nodes.Tuple, nodes.Keyword, nodes.Operand),
    *(nodes.Getattr, nodes.Getitem, nodes.Slice, nodes.Filter, nodes.Test, nodes.CondExpr),
    *(nodes.Compare, nodes.And, nodes.Or, nodes.Not, nodes.Neg, nodes.Pos),
    *(nodes.Concat, nodes.Add, nodes.Sub, nodes.Div, nodes.FloorDiv),
)

_REFUSED: Final[dict[type[nodes.Node], str]] = {
    nodes.Call: "a call; use filters, such as {{ title|upper }}",
    nodes.Mul: "*",
    nodes.Pow: "**",
    nodes.Mod: "%",
    nodes.Dict: "a map in braces",
}


def _check(tree: nodes.Template) -> int:
    """Return what rendering costs at most; raise TemplateError for what a template may not use."""
    stored = {name.name for name in tree.find_all(nodes.Name) if name.ctx == "store"}
    names = [*NAMES, *sorted(stored)]
    lists = {"events", "data"} - stored
    for node in tree.find_all(nodes.Node):
        problem = _problem(node, names)
        if problem is not None:
            raise TemplateError(f"line {node.lineno or 1}: must not use {problem}")
        if isinstance(node, nodes.For) and not _is_list(node.iter, lists):
            problem = "loops over a text, or over what could be one; append |list to a list"
            raise TemplateError(f"line {node.lineno}: {problem}")
    work = _work(tree)
    if work > MOST_WORK:
        raise TemplateError(_TOO_MUCH)
    return work


def _problem(node: nodes.Node, names: list[str]) -> str | None:  # noqa: PLR0911 - a return each
    match node:
        case nodes.Name(name=name) if name not in {*names, "loop"}:
            return f'the name "{name}"; the names here are {", ".join(names)}'
        case nodes.Filter(name=name) if name not in _FILTERS:
            return f'the filter "{name}"; the filters here are {", ".join(sorted(_FILTERS))}'
        case nodes.Filter() | nodes.Test() if node.dyn_args or node.dyn_kwargs:
            return "* or ** before an argument"
        case nodes.For() if any(loop.find(nodes.For) for loop in node.find_all(nodes.For)):
            return "a loop in a loop in a loop"
        # Lists of lists of lists: a few lines could print as gigabytes.
        case nodes.List(items=items) | nodes.Tuple(items=items, ctx="load"):
            if not all(isinstance(item, nodes.Const) for item in items):
                return "variables in a list"
            if len(items) > _LONGEST_LIST:
                return f"a list of more than {_LONGEST_LIST} values"
    if not issubclass(type(node), _ALLOWED):
        return _REFUSED.get(type(node), type(node).__name__.lower())
    return None


def _is_list(node: nodes.Node, names: set[str]) -> bool:
    """Return whether an expression is a list or a map for certain: a text has too many letters."""
    match node:
        case nodes.Getitem(node=sliced, arg=nodes.Slice()):
            return _is_list(sliced, names)
        case nodes.Or(left=left, right=right):
            return _is_list(left, names) and _is_list(right, names)
        case nodes.Name(name=name):
            return name in names
        case nodes.Getattr(attr=name):
            return name in {"data", "fine_tune", "links", "failed_ones"}
        case nodes.Filter(name=name):
            return name in _LIST_FILTERS
    return isinstance(node, nodes.List | nodes.Tuple)


def _work(node: nodes.Node) -> int:
    """Return the most that rendering a node costs, in the unit of MOST_WORK."""
    work = 1 + sum(map(_work, node.iter_child_nodes()))
    match node:
        case nodes.For():
            once = _work(node.iter)
            return once + _LONGEST_LIST * (work - once)
        case nodes.Filter(name=name) if name in _SLOW_FILTERS:
            return work + _SLOW_WORK
        case nodes.Filter() | nodes.Test() | nodes.Operand() | nodes.Concat() | nodes.Add():
            return work + _OPERATION_WORK
        case nodes.Slice():
            return work + _OPERATION_WORK
        case nodes.Const(value=str(text)):
            return work + len(text)  # it can name many attributes to |sort by
    return work


def _join(values: Iterable[Any], separator: str = "") -> str:
    """Return texts joined, as the filter ``join`` and the operator ``~`` do."""
    texts, size = [], 0
    for value in values:
        texts.append(str(_printable(value)))
        size += len(texts[-1]) + len(separator)
        if size > LONGEST_TEXT:
            raise TemplateError(_TOO_LONG)
    return separator.join(texts)


def _printable(value: Any) -> Any:
    """Return what is printed of a value: nothing of null; TemplateError for a list or a map."""
    if value is None:
        return ""
    if isinstance(value, str | int | float | Undefined):
        return value
    raise TemplateError("prints what is no text; choose a part of it, or use |join or |tojson")


def _bounded(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a filter that raises TemplateError instead of returning a large text or list."""

    @wraps(function)
    def bounded(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        if isinstance(result, str):
            return _join([result])
        return list(_bounded_list(result)) if isinstance(result, Iterator | list) else result

    return bounded


def _bounded_list(items: Iterable[Any]) -> Iterator[Any]:
    size = 0
    for number, item in enumerate(items):
        if number == _LONGEST_LIST:
            raise TemplateError(f"makes a list of more than {_LONGEST_LIST} values")
        size += len(item) if isinstance(item, str) else 0
        if size > _LONGEST_LIST * LONGEST:
            raise TemplateError(f"makes a list of more than {_LONGEST_LIST * LONGEST} characters")
        yield item


_LIST_FILTERS: Final = frozenset(
    (
        *("dictsort", "items", "list", "map", "reject", "rejectattr", "select", "selectattr"),
        *("sort", "unique"),
    )
)

_FROM_JINJA: Final = (
    *("capitalize", "count", "d", "default", "dictsort", "first", "int", "items", "last", "length"),
    *("list", "lower", "map", "max", "min", "reject", "rejectattr", "reverse", "select"),
    *("selectattr", "sort", "title", "trim", "truncate", "unique", "upper", "urlencode"),
)
"""Filters whose result is not much longer than their input: no center, format, indent, replace."""

_FILTERS: Final[dict[str, Callable[..., Any]]] = {
    name: _bounded(function)
    for name, function in {
        **{name: FILTERS[name] for name in _FROM_JINJA},
        "e": lambda value: str(escape(value)),
        "escape": lambda value: str(escape(value)),
        "join": _join,
        "string": lambda value: str(_printable(value)),
        # Without Jinja's further argument: an indent could be a gigabyte wide.
        "tojson": lambda value: json.dumps(value, ensure_ascii=False),
    }.items()
}


class _CodeGenerator(CodeGenerator):
    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:  # noqa: N802 - as inherited
        """Write ``~`` as a call of ``concatenate``: Jinja's own has no bound."""
        self.write("environment.concatenate((")
        for operand in node.nodes:
            self.visit(operand, frame)
            self.write(", ")
        self.write("))")


class _Environment(ImmutableSandboxedEnvironment):
    code_generator_class = _CodeGenerator
    intercepted_binops = frozenset({"+"})
    concatenate = staticmethod(_join)

    def __init__(self) -> None:
        super().__init__(
            undefined=StrictUndefined,
            finalize=_printable,
            keep_trailing_newline=True,
            cache_size=0,
        )
        self.globals.clear()
        self.filters = dict(_FILTERS)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:  # noqa: ARG002 - as inherited
        if isinstance(left, str) and isinstance(right, str):
            return _join((left, right))
        if isinstance(left, int | float) and isinstance(right, int | float):
            return left + right
        raise TemplateError("adds what is neither two texts nor two numbers")


_ENVIRONMENT: Final = _Environment()
