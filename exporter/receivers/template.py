"""Operators' templates: the body of a webhook, and the first line of a Slack message.

docs/webhook.md lists what a template may use. All of it is checked before a template is compiled,
since Jinja evaluates constant expressions while it compiles.

**Time**: the templates of one body take at most about 5 s. A text has at most 65,536 characters, a
list at most 100 values and 100,000 characters. With these a filter, a test or an operator takes at
most 0.3 ms, a slow filter 15 ms and any other node 15 µs. They count as 20, 1,000 and 1, a
hundredfold in each loop, and a body may have 300,000: 15,000 * 0.3 ms = 300 * 15 ms = 4.5 s.

**Memory**: at most about 100 MB. A text takes up to 0.25 MB, a list 0.4 MB. A template has at most
20 names of its own, and an expression 100 operations (25 MB). A filter builds a list of at most 100
texts (25 MB) before it refuses it.
"""

import json
import re
import traceback
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import wraps
from itertools import islice
from typing import Any, Final

from jinja2 import StrictUndefined, TemplateRuntimeError, TemplateSyntaxError, nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.filters import FILTERS
from jinja2.runtime import Context, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from markupsafe import escape

from exporter.core.message import Message
from exporter.core.secret import Secret
from exporter.core.text import LONGEST, one_line
from exporter.receivers.payload import MOST_EVENTS, NAMES, standard_body, variables
from exporter.receivers.receiver import encoded

LONGEST_SOURCE: Final = 16 * 1024
LONGEST_TEXT: Final = 65_536
_LONGEST_LIST: Final = MOST_EVENTS
_LONGEST_BODY: Final = 512 * 1024

MOST_WORK: Final = 300_000
_MOST_NAMES: Final = 20
_MOST_OPERATIONS: Final = 100

_TOO_LONG: Final = (
    f"makes more than {LONGEST_TEXT} characters; use |truncate, or fewer events, as in events[:20]"
)
_TOO_MUCH: Final = "takes too much work; loop over less, or leave something out"

Path = tuple[str | int, ...]


class TemplateError(Exception):
    """A template is not usable or cannot be rendered; the text says where and why."""


_SECRETS: Final = "secrets"
"""The variable with the secrets of a body, by name."""


class Template:
    """A compiled template of one text; ``work`` is the most that rendering it costs.

    It may print the ``secrets`` of these names.
    """

    def __init__(self, source: str, secrets: Collection[str] = ()) -> None:
        """Compile a text; raise TemplateError when it is not a template within the bounds."""
        if len(source) > LONGEST_SOURCE:
            raise TemplateError(f"must be at most {LONGEST_SOURCE} characters long")
        try:
            tree = _ENVIRONMENT.parse(source)
            # Before compiling: the code generator evaluates constant expressions.
            _check_secrets(tree, secrets)
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
        except ValueError:
            raise TemplateError("holds a number that is too large") from None

    def render(self, variables: Mapping[str, Any]) -> str:
        """Return the text; raise TemplateError, with the line, if it cannot be rendered."""
        try:
            # Piece by piece, so that an output that is too long is never built in whole.
            return _join(self._compiled.generate(variables))
        except Exception as error:  # noqa: BLE001 - a template can raise anything
            # Python's own texts are left out: they may quote a value.
            reason = f"cannot be evaluated ({type(error).__name__})"
            if isinstance(error, TemplateError | TemplateRuntimeError):
                reason = one_line(str(error), 200)
            frames = traceback.walk_tb(error.__traceback__)
            lines = [line for frame, line in frames if frame.f_code.co_filename == "<template>"]
            raise TemplateError(f"line {lines[-1] if lines else 1}: {reason}") from None


class TemplateBody:
    """A webhook's body: the operator's map with its texts rendered; other values are kept.

    It has a placeholder in place of each of the ``secrets`` that it prints: see ``with_secrets``.
    """

    def __init__(self, template: Mapping[str, Any], secrets: Collection[str] = ()) -> None:
        """Compile the texts of a map of JSON's types; raise TemplateError when one can't be."""
        works: list[int] = []
        self._template = _map_texts(template, lambda text: Template(text, secrets))
        self._secrets = {name: f"\0{name}\0" for name in secrets}
        _map_texts(self._template, lambda text: works.append(text.work))
        if sum(works) > MOST_WORK:
            raise TemplateError(_TOO_MUCH)

    def __call__(self, message: Message, *, minimal: bool) -> bytes:
        """Return the body; if the minimal form cannot be rendered, it is the standard body."""
        clean = _without_nul if self._secrets else None
        if not minimal:
            return self.render(variables(message, clean))
        try:
            return self.render(variables(message, clean, minimal=True))
        except TemplateError:
            return standard_body(message, minimal=True)

    def render(self, found: Mapping[str, Any]) -> bytes:
        """Return the map as JSON; raise TemplateError when it can't be rendered within bounds."""
        given = {**found, _SECRETS: self._secrets}
        body = encoded(_map_texts(self._template, lambda template: template.render(given)))
        if len(body) > _LONGEST_BODY:
            raise TemplateError(f"makes a body of more than {_LONGEST_BODY // 1024} KiB")
        return body


def _without_nul(text: str) -> str:
    # So that no text from outside can be a placeholder.
    return text.replace("\0", "\ufffd")


def with_secrets(body: bytes, secrets: Mapping[str, Secret]) -> bytes:
    """Return a body with the secrets in place of their placeholders.

    They are filled in when a message is sent, since its body is stored. Raises SecretError.
    """
    if not secrets:
        return body
    found = {name: secret() for name, secret in secrets.items()}

    def fill(text: str) -> str:
        return re.sub("\0(\\w+)\0", lambda match: found.get(match[1], ""), text)

    return encoded(_map_texts(json.loads(body), fill))


def _map_texts(value: Any, change: Callable[[Any], Any], path: Path = ()) -> Any:
    """Return a copy with each text or template changed; a TemplateError gets its path."""
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


_NODE_WORK: Final[dict[type[nodes.Node], int]] = {
    **dict.fromkeys((nodes.Template, nodes.Output, nodes.TemplateData, nodes.If, nodes.For), 1),
    **dict.fromkeys((nodes.Assign, nodes.Name, nodes.Const, nodes.List, nodes.Tuple), 1),
    **dict.fromkeys((nodes.Getattr, nodes.Getitem, nodes.CondExpr, nodes.Compare), 1),
    **dict.fromkeys((nodes.And, nodes.Or, nodes.Not, nodes.Neg, nodes.Pos, nodes.Keyword), 1),
    **dict.fromkeys((nodes.Sub, nodes.Div, nodes.FloorDiv), 1),
    **dict.fromkeys((nodes.Filter, nodes.Test, nodes.Operand), 20),
    **dict.fromkeys((nodes.Concat, nodes.Add, nodes.Slice), 20),
}
"""What a template may consist of, and what each node costs; slow filters cost 1,000 more."""

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
    if len(stored) > _MOST_NAMES:
        raise TemplateError(f"must not have more than {_MOST_NAMES} names of its own")
    names = [*NAMES, *sorted(stored)]
    for node in tree.find_all(nodes.Node):
        problem = _problem(node, names)
        if problem is not None:
            raise TemplateError(f"line {node.lineno or 1}: must not use {problem}")
        if isinstance(node, nodes.For) and not _is_list(node.iter, {"events", "data"} - stored):
            problem = "loops over a text, or over what could be one; append |list to a list"
            raise TemplateError(f"line {node.lineno}: {problem}")
    work = _work(tree)
    if work > MOST_WORK:
        raise TemplateError(_TOO_MUCH)
    return work


def _check_secrets(tree: nodes.Template, secrets: Collection[str]) -> None:
    """Raise TemplateError if a secret is used in any other way than ``{{ secrets.NAME }}``.

    A filter could change its placeholder.
    """
    printed = [
        child.node
        for output in tree.find_all(nodes.Output)
        for child in output.nodes
        if isinstance(child, nodes.Getattr) and child.attr in secrets
    ]
    for name in tree.find_all(nodes.Name):
        if name.name == _SECRETS and not any(name is each for each in printed):
            known = ", ".join(secrets) or "none; give them as template_secrets"
            raise TemplateError(
                f"line {name.lineno}: must use a secret as {{{{ secrets.NAME }}}} only, without a "
                f"filter; the names are {known}"
            )


def _problem(node: nodes.Node, names: list[str]) -> str | None:
    match node:
        case nodes.Name(name=name) if name not in {*names, "loop", _SECRETS}:
            return f'the name "{name}"; the names here are {", ".join(names)}'
        case nodes.For() if any(loop.find(nodes.For) for loop in node.find_all(nodes.For)):
            return "a loop in a loop in a loop"
        # Lists of lists of lists: a few lines could print as gigabytes.
        case nodes.List(items=items) | nodes.Tuple(items=items, ctx="load"):
            if not all(isinstance(item, nodes.Const) for item in items):
                return "variables in a list"
            if len(items) > _LONGEST_LIST:
                return f"a list of more than {_LONGEST_LIST} values"
        case nodes.Filter() | nodes.Test() | nodes.Concat():
            return _operand_problem(node)
    allowed = type(node) in _NODE_WORK
    return None if allowed else _REFUSED.get(type(node), type(node).__name__.lower())


def _operand_problem(node: nodes.Filter | nodes.Test | nodes.Concat) -> str | None:
    if not isinstance(node, nodes.Concat) and (node.dyn_args or node.dyn_kwargs):
        return "* or ** before an argument"
    # Their results can be in memory at the same time.
    operations = node.find_all((nodes.Filter, nodes.Concat, nodes.Add, nodes.Slice))
    if len(list(operations)) > _MOST_OPERATIONS:
        return f"more than {_MOST_OPERATIONS} filters and operators in one expression"
    if not isinstance(node, nodes.Filter):
        return None
    if node.name not in _FILTERS:
        return f'the filter "{node.name}"; the filters here are {", ".join(sorted(_FILTERS))}'
    attributes = node.args[: _ATTRIBUTE_ARGUMENTS.get(node.name, 0)]
    attributes += [each.value for each in node.kwargs if each.key == "attribute"]
    # A computed attribute could name thousands. Lists of lists could fill the memory.
    if all(isinstance(x, nodes.Const) and x.value not in _LIST_FILTERS for x in attributes):
        return None
    return f"a variable, or a filter that makes lists, as an argument of {node.name}"


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
    work = _NODE_WORK[type(node)] + sum(map(_work, node.iter_child_nodes()))
    match node:
        case nodes.For():
            once = _work(node.iter)
            return once + _LONGEST_LIST * (work - once)
        case nodes.Filter(name=name):
            return work + 1_000 * (name in _SLOW_FILTERS)
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
        if not isinstance(result, Iterator | list):
            return result
        items = list(islice(result, _LONGEST_LIST + 1))
        if len(items) > _LONGEST_LIST:
            raise TemplateError(f"makes a list of more than {_LONGEST_LIST} values")
        if sum(len(item) for item in items if isinstance(item, str)) > _LONGEST_LIST * LONGEST:
            raise TemplateError(f"makes a list of more than {_LONGEST_LIST * LONGEST} characters")
        return items

    return bounded


_SLOW_LISTS: Final = ("map", "reject", "rejectattr", "select", "selectattr", "sort", "unique")
_LIST_FILTERS: Final = ("dictsort", "items", "list", *_SLOW_LISTS)
_SLOW_FILTERS: Final = ("title", "urlencode", *_SLOW_LISTS)

_ATTRIBUTE_ARGUMENTS: Final = {
    **dict.fromkeys(("map", "rejectattr", "selectattr"), 1),
    **dict.fromkeys(("max", "min", "sort", "unique"), 4),
}
"""How many of a filter's arguments can be an attribute, or the filter that ``map`` applies."""

_FROM_JINJA: Final = (
    *("capitalize", "count", "d", "default", "first", "int", "last", "length", "lower", "max"),
    *("min", "reverse", "title", "trim", "truncate", "upper", "urlencode", *_LIST_FILTERS),
)
"""Filters whose result is not much longer than their input: no center, format, indent, replace."""

_FILTERS: Final[dict[str, Callable[..., Any]]] = {
    name: _bounded(function)
    for name, function in {
        **{name: FILTERS[name] for name in _FROM_JINJA},
        **dict.fromkeys(("e", "escape"), lambda value: str(escape(value))),
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

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:  # noqa: ARG002 - as inherited
        if isinstance(left, str) and isinstance(right, str):
            return _join((left, right))
        if isinstance(left, int | float) and isinstance(right, int | float):
            return left + right
        raise TemplateError("adds what is neither two texts nor two numbers")


_ENVIRONMENT: Final = _Environment(
    undefined=StrictUndefined, finalize=_printable, keep_trailing_newline=True, cache_size=0
)
_ENVIRONMENT.globals.clear()
_ENVIRONMENT.filters = dict(_FILTERS)
