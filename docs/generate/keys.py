"""Each key of a section of the configuration: its type, its default, what its values must be."""

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
# Each is refused by one rule or another, which says then what it wants.
_REFUSED: dict[str, tuple[Any, ...]] = {
    "duration": ("1000y",),
    "whole number": (-1,),
    "number": (-1.0,),
    "text": ("(", "\0", "http://other.example"),
    _SECRET: ("(", "\0", "http://other.example"),
    "list of words": (["("],),
    "list of secrets": ([], ["("], ["http://other.example"] * 2),
    "map": ({"(": "text"}, {"job": "text"}, {"Host": "text"}),
}


def forms_of(section: type[Section], name: str) -> tuple[str, ...]:
    """Return the names that a key goes by: three for a secret, none for its second and third."""
    for key in section.SECRETS:
        if name == key.inline:
            return key.inline, key.file, key.env
        if name in {key.file, key.env}:
            return ()
    return (name,)


def sections_in(annotation: Any) -> list[type[Section]]:
    """Return the sections that a key holds, or may hold."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [each for argument in get_args(annotation) for each in sections_in(argument)]


def is_list(annotation: Any) -> bool:
    """Return whether a key holds a list."""
    return get_origin(_bare(annotation)) is tuple


def _bare(annotation: Any) -> Any:
    """Return a type without null and without its rules."""
    arguments = get_args(annotation)
    is_optional = type(None) in arguments
    return _bare(arguments[0]) if is_optional or get_origin(annotation) is Annotated else annotation


def type_of(field: FieldInfo) -> str:
    """Return what is written for a key, in words."""
    kind = _bare(field.annotation)
    if READ_DURATION in field.metadata:
        return "duration"
    if is_list(kind):
        return "list of secrets" if _bare(get_args(kind)[0]) is SecretStr else "list of words"
    if get_origin(kind) is dict or sections_in(kind):
        return "map"
    return _SECRET if kind is SecretStr else _WORDS.get(kind, "text")


def default_of(section: type[Section], name: str) -> str:
    """Return the value that a key has when it is not given, as it would be written."""
    field = section.model_fields[name]
    if field.is_required() or any(key.inline == name and key.required for key in section.SECRETS):
        return "required"
    value = field.get_default(call_default_factory=True, validated_data={})
    if value is None or isinstance(value, Section):
        return ""
    dumped = section.model_construct().model_dump()[name]
    return code(to_yaml(dumped, on_one_line=True).removesuffix("...\n").strip())


def rules_of(section: type[Section], name: str) -> str:
    """Return what the values of a key must be, in the words that refuse others."""
    field = section.model_fields[name]
    # Of a map without types of its own it depends on other keys what is refused.
    values = () if Any in get_args(_bare(field.annotation)) else _REFUSED.get(type_of(field), ())
    texts = dict.fromkeys(text for value in values for text in _refusals(section, name, value))
    # That it is no URL says enough of what else it may not be.
    kept = [text for text in texts if "without spaces, backslashes" not in text]
    return "; ".join(text.removeprefix("must ") for text in kept if text.startswith("must "))


def _refusals(section: type[Section], name: str, value: Any) -> Iterator[str]:
    try:
        section.model_validate({name: value})
    except ValidationError as error:
        problems = problems_of(error)
        yield from (text for location, text in problems if location[0] == name)
