"""The configuration in force, as its file would say it, without its secrets."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, get_args

import yaml
from pydantic import SecretStr
from pydantic.fields import FieldInfo

from exporter.config.models import Config, events_of
from exporter.config.receivers import CommonReceiver, HeaderValue
from exporter.config.section import Section
from exporter.config.types import READ_DURATION, format_duration

MASK: Final = "<secret>"
_HEAD: Final = """\
# What is in force: the file, the environment where it is silent, and the defaults.
# A key that is not here is not set.
"""
_FIRST: Final = ("name", "type")


class _Dumper(yaml.SafeDumper):
    """Writes lists of words in one line, and the others indented, as the example does."""

    def represent_scalar(self, tag: str, value: Any, style: str | None = None) -> Any:
        # A line break of Unicode's own is escaped in double quotes alone, and else read as a space.
        return super().represent_scalar(tag, value, style if value.isprintable() else '"')

    def represent_sequence(self, tag: str, sequence: Any, flow_style: bool | None = None) -> Any:  # noqa: FBT001  # as inherited
        flow_style = not any(isinstance(item, dict | list) for item in sequence)
        return super().represent_sequence(tag, sequence, flow_style)

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002, FBT001, FBT002  # as inherited
        super().increase_indent(flow, indentless=False)


def masked(config: Config) -> str:
    """Return the configuration as a YAML document, with every default, and MASK for each secret.

    What a value may show goes by its type alone: a secret type is masked wherever it stands, and
    so is whatever has no type of its own (the texts of a template: some services want their key in
    the body) and whatever has one that is not known here. A file's path and a variable's name are
    no secrets.
    """
    alerts = config.alerts
    receivers = (
        each.model_copy(update={"events": events_of(each, alerts)}) for each in config.receivers
    )
    whole = _section(config.model_copy(update={"receivers": tuple(receivers)}))
    return _HEAD + yaml.dump(
        whole, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=float("inf")
    )


def _section(section: Section) -> dict[str, object]:
    fields = type(section).model_fields
    # Pydantic puts the keys that all receivers have first, and so a receiver's type far down.
    first = _FIRST if isinstance(section, CommonReceiver) else ()
    names = [*first, *(name for name in fields if name not in first)]
    given = {name: value for name in names if (value := getattr(section, name)) is not None}
    return {name: written(value, fields[name]) for name, value in given.items()}


def written(value: object, field: FieldInfo) -> object:
    """Return the value of a key in YAML's plain values, as a file gives it; MASK for a secret."""
    if Any in _types(field.annotation):
        return _hidden(value)
    if isinstance(value, float) and is_duration(field):
        return format_duration(value)
    return _plain(value)


def is_duration(field: FieldInfo) -> bool:
    """Return whether a key holds seconds, written as a duration."""
    return READ_DURATION in field.metadata


def _types(annotation: Any) -> Iterator[Any]:
    yield annotation
    for argument in get_args(annotation):
        yield from _types(argument)


def _plain(value: object) -> object:
    match value:
        case HeaderValue(text=SecretStr()):
            return MASK
        case Section():
            return _section(value)
        case tuple():
            return [_plain(item) for item in value]
        case dict():
            return {key: _plain(item) for key, item in value.items()}
    return _scalar(value)


def _scalar(value: object) -> object:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, bool | int | float | str) else MASK


def _hidden(value: object) -> object:
    """Return the shape of a value: its keys, and how many items its lists have."""
    match value:
        case dict():
            return {key: _hidden(item) for key, item in value.items()}
        case list():
            return [_hidden(item) for item in value]
        case _:
            return MASK
