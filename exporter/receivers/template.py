"""A webhook's body out of the operator's own templates, and what these see of a message.

The names are a promise: docs/webhook.md lists them.
"""

import json
import re
import traceback
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, Final

from jinja2 import StrictUndefined, TemplateRuntimeError, TemplateSyntaxError, nodes, pass_context
from jinja2.filters import FILTERS
from jinja2.runtime import Context, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer
from markupsafe import escape

from exporter.core.events import EVENT_TYPES, Event, EventType, baseline_facts
from exporter.core.message import LinkTemplates, Message, build_message
from exporter.core.model import FAILED, STATUSES, FineTune, Snapshot
from exporter.core.text import LONGEST, cut, one_line, timestamp
from exporter.receivers.payload import MOST_EVENTS, event_body, last_timestamp, standard_body
from exporter.receivers.receiver import encoded

_AT: Final = 253_402_300_799.0  # the last second of the year 9999

# Emoji take most bytes of all characters, in UTF-8 and in JSON.
_LONG: Final = "\"'\\{{ }} {% %} <!channel> &\n".ljust(LONGEST, "\U0001f5e3")
_LONG_WORD: Final = "x" * 64

_PLAIN_LINKS: Final = LinkTemplates("https://play.example/")
_FULL_LINKS: Final = LinkTemplates("https://play.example/tunes/{id}", "https://watch.example/")

_EMPTY: Final = FineTune("x", model_id="", status="")
_FULL: Final = FineTune(_LONG, _LONG, _LONG, _LONG, _LONG, _LONG, _LONG)


def extremes() -> Iterator[tuple[str, Message]]:
    """Yield messages that nothing real exceeds in length, or in what it lacks, and their names."""
    for kind in EVENT_TYPES:
        yield f"{kind} with short texts", build_message([_event(kind, _EMPTY, "")], _PLAIN_LINKS)
        yield f"{kind} with long texts", build_message([_event(kind, _FULL, _LONG)], _FULL_LINKS)
    many = [_event("fine_tune.failed", _FULL, _LONG)] * MOST_EVENTS
    yield f"a digest of {MOST_EVENTS} with long texts", build_message(many, _FULL_LINKS)
    agent = [_event(kind, _EMPTY, "") for kind in EVENT_TYPES if kind.startswith("agent.")]
    yield "a digest without a fine-tune", build_message(agent, _PLAIN_LINKS)


def _event(kind: EventType, fine_tune: FineTune, text: str) -> Event:
    facts: dict[str, object] = {"since": timestamp(_AT)} if kind == "fine_tune.stuck" else {}
    if not kind.startswith("agent."):
        return Event("evt", kind, _LONG_WORD, _AT, fine_tune, text or None, facts)
    if kind == "agent.baseline":
        failed = FineTune(fine_tune.id, text, text, text, text, text, FAILED)
        facts = baseline_facts(Snapshot({str(n): failed for n in range(MOST_EVENTS)}, _AT))
    elif text:
        facts = {"reason": text, "receiver": _LONG_WORD, "text": text, "since": timestamp(_AT)}
    return Event("evt", kind, _LONG_WORD, _AT, None, None, facts)


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

NAMES: Final = ("type", "timestamp", "title", "text", "data", "events", "count")
"""The variables of a template."""

_FACTS: Final = ("since", "reason", "receiver", "text", "total", *STATUSES)

ABSENT: Final = dict.fromkeys(
    ("previous_status", "fine_tune", *_FACTS, "failed_ones", "failed_unnamed")
)
"""Null where an event has none, so that ``{% if data.fine_tune %}`` can ask."""

Path = tuple[str | int, ...]
Clean = Callable[[str], str]

_LONGEST_BODY: Final = 512 * 1024
_LONGEST_TEXT: Final = 8_000


def variables(
    message: Message, clean: Clean | None = None, *, minimal: bool = False
) -> dict[str, Any]:
    """Return what a template sees of a message; ``clean`` is applied to each text in it.

    There are at most 100 events, and no text that came from outside is longer than 1,000
    characters. The minimal form leaves out what people wrote.
    """
    shown = message.events[:MOST_EVENTS]
    events = [
        _complete(event_body(event, message.link_templates, minimal=minimal)) for event in shown
    ]
    found = {
        "type": message.type,
        "timestamp": last_timestamp(message),
        "title": message.type if minimal else cut(message.title),
        "text": "" if minimal else cut(_text(message), _LONGEST_TEXT),
        "data": events[0]["data"],
        "events": events,
        "count": len(message.events),
    }
    return found if clean is None else _cleaned(found, clean)


def _complete(body: dict[str, Any]) -> dict[str, Any]:
    data = ABSENT | body["data"]
    links = data["links"].items()
    data["links"] = {name: url if url and len(url) <= LONGEST else None for name, url in links}
    if data["fine_tune"] is not None:
        data["fine_tune"] = {"name": "", "description": ""} | data["fine_tune"]
    return body | {"data": data}


def _text(message: Message) -> str:
    facts = (f"{name}: {value}" for name, value in message.facts)
    more = (f"and {len(message.rest)} more",) if message.rest else ()
    return "\n".join(filter(None, (*facts, message.text, *message.lines, *more)))


def _cleaned(value: Any, clean: Clean) -> Any:
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, dict):
        return {name: _cleaned(item, clean) for name, item in value.items()}
    return [_cleaned(item, clean) for item in value] if isinstance(value, list) else value


class TemplateBody:
    """A webhook's body: the operator's map, with its texts rendered and everything else kept."""

    def __init__(self, template: Mapping[str, Any]) -> None:
        """Compile the texts of a map of JSON's types; raise TemplateError when one can't be."""
        self._template = each_text(template, lambda _, text: Template(text, NAMES))

    def __call__(self, message: Message, *, minimal: bool) -> bytes:
        """Return the map as JSON; raise TemplateError when it can't be rendered within bounds.

        The minimal form never raises: it is the map without what people wrote or, when not even
        that can be rendered, the standard body.
        """
        if not minimal:
            return self._rendered(variables(message))
        try:
            return self._rendered(variables(message, minimal=True))
        except TemplateError:
            return standard_body(message, minimal=True)

    def _rendered(self, seen: Mapping[str, Any]) -> bytes:
        budget = Budget()
        body = encoded(each_text(self._template, lambda _, text: text.render(seen, budget)))
        if len(body) > _LONGEST_BODY:
            raise TemplateError(f"makes a body of more than {_LONGEST_BODY // 1024} KiB")
        return body


def each_text(value: Any, change: Callable[[Path, Any], Any], path: Path = ()) -> Any:
    """Return a copy of a map or a list in which each text, or template, is changed."""
    if isinstance(value, Mapping):
        return {key: each_text(item, change, (*path, key)) for key, item in value.items()}
    if isinstance(value, list):
        return [each_text(item, change, (*path, number)) for number, item in enumerate(value)]
    if not isinstance(value, str | Template):
        return value
    try:
        return change(path, value)
    except TemplateError as error:
        raise TemplateError(f"{'.'.join(map(str, path))}: {error}") from None


Fault = tuple[Path, str]
"""A place in a template, and what is wrong there: it starts with a line or with a verb."""

_MOST_VALUES: Final = 500
_DEEPEST: Final = 20
_LARGEST: Final = 2**63
_KINDS: Final = "must be text, a number, true, false, null, a list or a map"

_Samples = list[tuple[str, dict[str, Any]]]


def body_faults(template: Mapping[str, Any]) -> list[Fault]:
    """Return what is wrong with a template of a body."""
    # YAML's aliases make a great deal, or a ring, out of a few lines.
    values = list(islice(_walk(template, ()), _MOST_VALUES + 1))
    if len(values) > _MOST_VALUES or any(len(path) > _DEEPEST for path, _ in values):
        return [((), f"must have at most {_MOST_VALUES} values, at most {_DEEPEST} levels deep")]
    samples = [(name, variables(message)) for name, message in extremes()]
    found = [
        (path, fault) for path, value in values if (fault := _fault(value, samples)) is not None
    ]
    return found or list(_size_faults(template))


def line_fault(text: str, clean: Clean) -> str | None:
    """Return what is wrong with a template of a single text, if anything is.

    ``clean`` is what its receiver does to each text before the template sees it.
    """
    return _fault(text, [(name, variables(message, clean)) for name, message in extremes()])


def _walk(value: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    """Yield everything in a map, as deep as one level more than is allowed."""
    yield path, value
    if len(path) > _DEEPEST:
        return
    items = value.items() if isinstance(value, dict) else ()
    for key, item in enumerate(value) if isinstance(value, list) else items:
        yield from _walk(item, (*path, key))


def _fault(value: Any, samples: _Samples) -> str | None:
    if isinstance(value, str):
        return _text_fault(value, samples)
    if isinstance(value, dict):
        return None if all(map(_is_text, value)) else "must have text as its keys"
    if isinstance(value, float):
        return None if abs(value) < float("inf") else "must be a finite number"
    if isinstance(value, int):
        return None if abs(value) < _LARGEST else "must be a smaller number"
    return None if value is None or isinstance(value, list) else _KINDS


def _is_text(value: object) -> bool:
    """Return whether it is text that can be sent; YAML's escapes can make half a character."""
    return isinstance(value, str) and not any("\ud800" <= c <= "\udfff" for c in value)


def _text_fault(text: str, samples: _Samples) -> str | None:
    if not _is_text(text):
        return "must be valid Unicode text"
    try:
        template = Template(text, NAMES)
    except TemplateError as error:
        return str(error)
    for name, seen in samples:
        try:
            template.render(seen, Budget())
        except TemplateError as error:
            return f"{error}{_hint(error)} (tried with {name})"
    return None


def _hint(error: TemplateError) -> str:
    if "'None' has no attribute" in str(error):
        return "; guard it, as in {% if data.fine_tune %}…{% endif %}"
    if "has no attribute" in str(error):
        return f"; the names in data are account, observed_at, links, {', '.join(ABSENT)}"
    return ""


def _size_faults(template: Mapping[str, Any]) -> Iterator[Fault]:
    body = TemplateBody(template)
    for name, sample in extremes():
        try:
            body(sample, minimal=False)
        except TemplateError as error:
            yield (), f"{error} (tried with {name})"
            return
