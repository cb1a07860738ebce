"""Texts of configuration errors, as `path: what is wrong`, made from pydantic's errors.

No text repeats a value of the file, because the value may be a secret.
"""

import difflib
import re
import traceback
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
_NOT_A_KEY = re.compile(r"://|[^ -~]|.{65}")
_KEY_OF_MAPPING = "[key]"
_SECRET = re.compile(r"(sk_car_(?:admin_)?+|whsec_)[A-Za-z0-9_.+/=-]+")


class ConfigError(Exception):
    """The configuration is not usable; ``problems`` has one text for each mistake."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = [_SECRET.sub(r"\1…", text) for text in problems]
        super().__init__("\n".join(self.problems))


def suggest(word: object, allowed: Iterable[str]) -> str:
    """Return `; did you mean "…"?` with the most similar allowed word, or an empty text."""
    close = difflib.get_close_matches(word, list(allowed), 1) if isinstance(word, str) else []
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
    return [
        _problem(details)
        for details in error.errors(include_url=False)
        if details["type"] != "default_factory_not_called"
    ]


def _problem(details: ErrorDetails) -> Problem:
    location = tuple(part for part in details["loc"] if part != _KEY_OF_MAPPING)
    error_type, context = details["type"], details.get("ctx", {})
    if error_type == "problem":
        return location, context["text"]
    if error_type == "value_error":
        return location, str(context["error"])
    if error_type == "literal_error":
        options = re.findall(r"'([^']*)'", context["expected"])
        return location, f"must be {choice(options)}{suggest(details['input'], options)}"
    return location, _TEXTS.get(error_type, "is not valid here")


def choice(options: Sequence[str]) -> str:
    """Return `a, b or c`."""
    return " or ".join(filter(None, (", ".join(options[:-1]), options[-1])))


def problem_texts(problems: Iterable[Problem], names: Mapping[Location, str]) -> list[str]:
    """Return `path: text` of each problem, sorted by path.

    Args:
        problems: pydantic's location and a text, for each problem.
        names: the name of a location that is not in the file, e.g. $CARTESIA_BASE_URL.
    """
    distinct = {(_location_in_file(location), text) for location, text in problems}
    texts = []
    for location, text in sorted(distinct, key=lambda problem: (_sort_key(problem[0]), problem[1])):
        # A mistyped line can have a URL or a password in the place of its key.
        keys = ("…" if _NOT_A_KEY.search(str(part)) else str(part) for part in location)
        path = names.get(location) or ".".join(keys)
        texts.append(f"{path}: {text.removeprefix(f'{path} ')}")
    return texts


def _location_in_file(location: Location) -> Location:
    # Pydantic adds the type of a receiver, except to the problems of the list as a whole.
    if location[:1] == ("receivers",) and len(location) > len(("receivers", 0, "name")):
        location = location[:2] + location[3:]
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
