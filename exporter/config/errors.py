"""Texts of configuration errors, as `line 3: path: what is wrong`, made from pydantic's errors.

No text repeats a value of the file, because the value may be a secret.
"""

import difflib
import re
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from msgspec import Struct, field
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError, ValidationError

Location = tuple[int | str, ...]
Problem = tuple[Location, str]

MAX_PROBLEMS = 100
"""Mistakes that are named; of more, only the number is given."""

_MAX_WORD = 64
"""Longest word that is compared with others, in characters: the time is quadratic."""

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
_NOT_A_KEY = re.compile(r"://|[^ -~]|.{65}")
_NAME = re.compile(r"[a-zA-Z0-9_.-]{1,64}")
_KEY_OF_MAPPING = "[key]"
_SECRET = re.compile(r"(sk_car_(?:admin_)?+|whsec_)[A-Za-z0-9_.+/=-]+")


class ConfigError(Exception):
    """The configuration is not usable; ``problems`` has one text for each mistake."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = [_SECRET.sub(r"\1…", text) for text in problems]
        super().__init__("\n".join(self.problems))


def suggest(word: object, allowed: Iterable[str]) -> str:
    """Return `; did you mean "…"?` with the most similar allowed word, or an empty text."""
    is_short = isinstance(word, str) and len(word) <= _MAX_WORD
    close = difflib.get_close_matches(str(word), list(allowed), 1) if is_short else []
    return f'; did you mean "{close[0]}"?' if close else ""


def validation_error(title: str, problems: Iterable[Problem]) -> ValidationError:
    """Return a pydantic error with these problems, to be raised inside a validator."""
    lines = [
        InitErrorDetails(
            type=PydanticCustomError("problem", "{text}", {"text": text}), loc=location, input=None
        )
        for location, text in problems
    ]
    return ValidationError.from_exception_data(title, lines, hide_input=True)


def problems_of(error: ValidationError) -> list[Problem]:
    """Return pydantic's errors as locations and plain texts."""
    found = [
        details
        for details in error.errors(include_url=False)
        if details["type"] != "default_factory_not_called"
    ]
    return [_problem(each, suggests=n < MAX_PROBLEMS) for n, each in enumerate(found)]


def _problem(details: ErrorDetails, *, suggests: bool) -> Problem:
    location = tuple(part for part in details["loc"] if part != _KEY_OF_MAPPING)
    error_type, context = details["type"], details.get("ctx", {})
    if error_type == "problem":
        return location, context["text"]
    if error_type == "value_error":
        return location, str(context["error"])
    if error_type == "literal_error":
        options = re.findall(r"'([^']*)'", context["expected"])
        return (
            location,
            f"must be {choice(options)}{suggest(details['input'], options) if suggests else ''}",
        )
    return location, _TEXTS.get(error_type, "is not valid here")


def choice(options: Sequence[str]) -> str:
    """Return `a, b or c`."""
    return " or ".join(filter(None, (", ".join(options[:-1]), options[-1])))


class Places(Struct, frozen=True):
    """Where the values of a configuration come from.

    ``values`` are the values as they were read; ``line_of`` returns the line of a location, None
    if it is not in a file; ``variables`` has the variables of the locations that come from one.
    """

    values: Mapping[Any, Any] = field(default_factory=dict)
    line_of: Callable[[Location], int | None] = lambda _: None
    variables: Mapping[Location, str] = field(default_factory=dict)


def problem_texts(problems: Iterable[Problem], places: Places) -> list[str]:
    """Return `line 3: path: text` of each problem, in the order of the file.

    After MAX_PROBLEMS texts the last one says how many are left out.
    """
    distinct = {(_location_in_file(location), text) for location, text in problems}
    lines = {
        location: None if location in places.variables else places.line_of(location)
        for location, _ in distinct
    }
    ordered = sorted(distinct, key=lambda each: (lines[each[0]] or 0, _sort_key(each[0]), each[1]))
    texts = []
    for location, text in ordered[:MAX_PROBLEMS]:
        path = places.variables.get(location) or _path(location, places.values)
        line = lines[location]
        place = path if line is None else f"line {line}: {path}"
        texts.append(f"{place}: {text.removeprefix(f'{path} ')}")
    if ordered[MAX_PROBLEMS:]:
        texts.append(f"and {len(ordered) - MAX_PROBLEMS:,} more")
    return texts


def _path(location: Location, values: Mapping[Any, Any]) -> str:
    """Return a location as `receivers[ops].events[0]`; an item without a name by its index."""
    path = ""
    for n, part in enumerate(location):
        # A mistyped line can have a URL or a password in the place of its key.
        key = "…" if _NOT_A_KEY.search(str(part)) else str(part)
        if isinstance(part, int):
            path += f"[{_item_name(values, location) if n == 1 else part}]"
        else:
            path += f".{key}" if path else key
    return path


def _item_name(values: Mapping[Any, Any], location: Location) -> object:
    section, index = location[:2]
    items = values.get(section)
    item = items[index] if isinstance(items, list) and isinstance(index, int) else None
    name = item.get("name") if isinstance(item, dict) else None
    return name if isinstance(name, str) and _NAME.fullmatch(name) else index


def _location_in_file(location: Location) -> Location:
    # In the file, the text of a header is the value of its name.
    if location[2:3] == ("headers",) and location[4:] == ("text",):
        location = location[:4]
    return location


def _sort_key(location: Location) -> list[tuple[bool, int, str]]:
    return [(False, part, "") if isinstance(part, int) else (True, 0, part) for part in location]


def unexpected_error_text(error: Exception) -> str:
    """Return what kind of error reading a configuration raised, and in which function.

    Without the error's own text, which may repeat a secret of the file.
    """
    frames = traceback.extract_tb(error.__traceback__)
    place = f" in {frames[-1].name}" if frames else ""
    return f"unexpected {type(error).__name__}{place}; check the values that changed last"
