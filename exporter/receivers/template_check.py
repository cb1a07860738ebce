"""What is wrong with a template, found before it is taken into service.

A template is compiled and rendered with messages at their extremes: what fails only with the one
alert that matters would be found too late.
"""

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, Final

from exporter.receivers.samples import extremes
from exporter.receivers.sandbox import Budget, Template, TemplateError
from exporter.receivers.template import ABSENT, NAMES, Clean, Path, TemplateBody, variables

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
    for name, message in extremes():
        try:
            body(message, minimal=False)
        except TemplateError as error:
            yield (), f"{error} (tried with {name})"
            return
