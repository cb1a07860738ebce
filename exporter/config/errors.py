"""Mistakes in a configuration, in plain words: pydantic's errors become `path: what is wrong`.

No text repeats a value from the file, so none can repeat a secret.
"""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence

from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError, ValidationError

Location = tuple[int | str, ...]
Problem = tuple[Location, str]

_TEXTS = {
    "bool_type": "must be true or false",
    "dict_type": "must be a mapping of keys to values",
    "float_type": "must be a number",
    "int_type": "must be a whole number",
    "invalid_key": "unknown key; keys are text",
    "list_type": "must be a list",
    "missing": "missing; this key is required",
    "model_attributes_type": "must be a mapping of keys to values",
    "model_type": "must be a mapping of keys to values",
    "string_type": "must be text; put it in quotes",
    "string_unicode": "must be valid Unicode text",
    "tuple_type": "must be a list",
}
_NO_KEY = re.compile(r"://|[^ -~]|.{65}")
_KEY_OF_MAPPING = "[key]"
_TAGS = frozenset({"slack", "webhook", "alertmanager", "apprise"})
_SECRET = re.compile(r"(sk_car_(?:admin_)?+|whsec_)[A-Za-z0-9_.+/=-]+")


class ConfigError(Exception):
    """The configuration is not usable; problems has one text for each mistake in it."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = [_SECRET.sub(r"\1…", text) for text in problems]
        super().__init__("\n".join(self.problems))


def suggest(word: object, known: Iterable[str]) -> str:
    """Return `; did you mean "…"?` with the known word most like it, or nothing."""
    close = difflib.get_close_matches(word, list(known), 1) if isinstance(word, str) else []
    return f'; did you mean "{close[0]}"?' if close else ""


def validation_error(title: str, problems: Iterable[Problem]) -> ValidationError:
    """Return the pydantic error that carries these problems, to be raised inside a validator."""
    lines = [
        InitErrorDetails(
            type=PydanticCustomError("problem", "{text}", {"text": text}), loc=location, input=None
        )
        for location, text in problems
    ]
    return ValidationError.from_exception_data(title, lines, hide_input=True)


def problems_of(error: ValidationError) -> list[Problem]:
    """Return pydantic's errors as places and plain words."""
    return [
        _problem(details)
        for details in error.errors(include_url=False)
        if details["type"] != "default_factory_not_called"
    ]


def _problem(details: ErrorDetails) -> Problem:
    location = tuple(part for part in details["loc"] if part != _KEY_OF_MAPPING)
    kind, context = details["type"], details.get("ctx", {})
    if kind == "union_tag_not_found":
        return (*location, "type"), f"missing; it must be {_choice(sorted(_TAGS))}"
    if kind == "union_tag_invalid":
        word = context.get("tag")
        return (*location, "type"), f"must be {_choice(sorted(_TAGS))}{suggest(word, _TAGS)}"
    if kind == "problem":
        return location, context["text"]
    if kind == "value_error":
        return location, str(context["error"])
    if kind == "literal_error":
        options = re.findall(r"'([^']*)'", context["expected"])
        return location, f"must be {_choice(options)}{suggest(details['input'], options)}"
    return location, _TEXTS.get(kind, "is not valid here")


def _choice(options: Sequence[str]) -> str:
    return " or ".join(filter(None, (", ".join(options[:-1]), options[-1])))


def texts(problems: Iterable[Problem], names: Mapping[Location, str]) -> list[str]:
    """Return `path: text` of each problem, sorted by path.

    Args:
        problems: the places, as pydantic gives them, and what is wrong there.
        names: what to call a place that is not in the file, e.g. $CARTESIA_BASE_URL.
    """
    placed = {(_in_file(location), text) for location, text in problems}
    ordered = sorted(placed, key=lambda problem: (_sort_key(problem[0]), problem[1]))
    return [_text(location, text, names) for location, text in ordered]


def _text(location: Location, text: str, names: Mapping[Location, str]) -> str:
    path = names.get(location) or ".".join(_shown(part) for part in location)
    return f"{path}: {text.removeprefix(f'{path} ')}"


def _shown(part: int | str) -> str:
    # A line of a file that lost its key can put a URL or a password where a key should be.
    return "…" if isinstance(part, str) and _NO_KEY.search(part) else str(part)


def _in_file(location: Location) -> Location:
    # pydantic names the kind of a receiver; the text of a header stands right behind its name.
    if location[:1] == ("receivers",) and location[2:3] and location[2] in _TAGS:
        location = location[:2] + location[3:]
    if location[2:3] == ("headers",) and location[4:] == ("text",):
        location = location[:4]
    return location


def _sort_key(location: Location) -> list[tuple[bool, int, str]]:
    return [
        (isinstance(part, str), part if isinstance(part, int) else 0, str(part))
        for part in location
    ]
