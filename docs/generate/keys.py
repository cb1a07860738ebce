"""Names, type, default and rules of a configuration key, from its pydantic model."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

from pydantic import SecretStr, ValidationError
from pydantic.fields import FieldInfo

from docs.generate.table import code
from exporter.config.errors import problems_of
from exporter.config.masked import to_yaml
from exporter.config.section import Section
from exporter.config.types import READ_DURATION

_WORDS = {bool: "true or false", int: "whole number", float: "number", Path: "path"}
_SECRET = "secret"
# Values that are refused: the texts of the errors are the rules of a key.
_INVALID_VALUES: dict[str, tuple[Any, ...]] = {
    "duration": ("1000y",),
    "whole number": (-1,),
    "number": (-1.0,),
    "text": ("(", "\0", "http://other.example"),
    _SECRET: ("(", "\0", "http://other.example"),
    "list of words": (["("], [""], ["unknown"]),
    "list of secrets": ([], ["("], ["http://other.example"] * 2),
    "map": ({"(": "text"}, {"job": "text"}, {"Host": "text"}),
}


def forms_of(section: type[Section], name: str) -> tuple[str, ...]:
    """Return the forms of a key: three for a secret, none for its second and third form."""
    for key in section.SECRETS:
        if name == key.inline:
            return key.inline, key.file, key.env
        if name in {key.file, key.env}:
            return ()
    return (name,)


def sections_in(annotation: Any) -> list[type[Section]]:
    """Return the sections that a key may hold."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [each for argument in get_args(annotation) for each in sections_in(argument)]


def is_list(annotation: Any) -> bool:
    """Return whether a key holds a list."""
    return get_origin(_inner_type(annotation)) is tuple


def _inner_type(annotation: Any) -> Any:
    """Return a type without None and without validators."""
    arguments = get_args(annotation)
    if type(None) in arguments or get_origin(annotation) is Annotated:
        return _inner_type(arguments[0])
    return annotation


def type_of(field: FieldInfo) -> str:
    """Return the type of a key's value, in words."""
    value_type = _inner_type(field.annotation)
    if READ_DURATION in field.metadata:
        return "duration"
    if is_list(value_type):
        item_type = _inner_type(get_args(value_type)[0])
        if sections_in(item_type):
            return "list of maps"
        return "list of secrets" if item_type is SecretStr else "list of words"
    if get_origin(value_type) is dict or sections_in(value_type):
        return "map"
    return _SECRET if value_type is SecretStr else _WORDS.get(value_type, "text")


def default_of(section: type[Section], name: str) -> str:
    """Return the default of a key, as it is written in the file."""
    field = section.model_fields.get(name)
    if field is None:
        return ""
    if field.is_required() or any(key.inline == name and key.required for key in section.SECRETS):
        return "required"
    value = field.get_default(call_default_factory=True, validated_data={})
    if value is None or isinstance(value, Section):
        return ""
    dumped = section.model_construct().model_dump()[name]
    return code(to_yaml(dumped, on_one_line=True).removesuffix("...\n").strip())


def rules_of(section: type[Section], name: str) -> str:
    """Return the rules of a key's values, from the texts that refuse other values."""
    field = section.model_fields.get(name)
    if field is None:
        values = _INVALID_VALUES["text"]
    elif Any in get_args(_inner_type(field.annotation)):
        values = ()  # what is refused in a map without types of its own depends on other keys
    else:
        values = _INVALID_VALUES.get(type_of(field), ())
    texts = dict.fromkeys(text for value in values for text in _errors(section, name, value))
    # The rule that it must be a URL is enough.
    kept = [text for text in texts if "without spaces, backslashes" not in text]
    rules = (text.removeprefix("must ") for text in kept if text.startswith("must "))
    return "; ".join(re.sub("; character [0-9].*", "", rule) for rule in rules)


def _errors(section: type[Section], name: str, value: Any) -> Iterator[str]:
    try:
        section.model_validate({name: value})
    except ValidationError as error:
        problems = problems_of(error)
        yield from (text for location, text in problems if location[0] == name)
