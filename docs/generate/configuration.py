"""docs/configuration.md: the keys out of the models, what they mean out of the example."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import get_args

from docs.generate.example import Said, said
from docs.generate.keys import default_of, forms_of, is_list, rules_of, sections_in, type_of
from docs.generate.table import code, head, row
from exporter.config import Config
from exporter.config.receivers import CommonReceiver, HeaderValue
from exporter.config.section import Section

_INTRODUCTION = """\
# Configuration

Made by `make docs` out of the models in `exporter/config/` and of \
[config.example.yaml](../config.example.yaml), which shows the keys at work. `cartesia-exporter \
check-config --config.file=config.yaml` names every mistake at once, each with its path in the \
file; an unknown key is one. [The page `/config`](#the-page-config) shows what is in force.

Durations are written as Prometheus writes them: `500ms`, `30s`, `5m`, `1h30m`, `2d`. A secret \
is given in one of its three forms: as a text, as the `_file` that holds it (read again at each \
use, so that it can be rotated without a restart), or as the `_env` variable that holds it. \
Relative paths start at the folder of the configuration file, `storage.path` at the working \
directory. A key whose value is null counts as left out. The web server's TLS, users and limits \
are in [a file of their own](web-config.md).
"""
_PAGE = """\
## The page /config

It shows what is in force, as a YAML document: the file, the environment where the file is \
silent, and the defaults; for a receiver without `events` those that it gets. A key that is not \
there is not set. Secrets are `<secret>`: keys, tokens, passwords, signing secrets, the values \
of headers, the URLs of receivers, of proxies and of the heartbeat, and the texts of a \
`template`, since some services want their key in the body. The path of a secret's file and the \
name of its variable are shown. It asks for the password, if the web configuration has one.
"""
_HEAD = head("key", "type", "default", "it must", "meaning")


@dataclass(frozen=True, slots=True)
class _Place:
    """The section at a place of the file, and what the example says there."""

    section: type[Section]
    above: tuple[str, ...]
    example: list[Said]

    def names(self) -> list[str]:
        """Return the keys, each by the first of its forms, in the order of the example."""
        names = [name for name in self.section.model_fields if forms_of(self.section, name)]
        order = [each.place for each in self.example]
        return sorted(names, key=lambda name: self._first(order, name))

    def _first(self, order: list[tuple[str, ...]], name: str) -> int:
        places = {(*self.above, form) for form in forms_of(self.section, name)}
        return next((at for at, place in enumerate(order) if place in places), len(order))

    def below(self, name: str, section: type[Section]) -> "_Place":
        """Return the place of a section that stands under a key."""
        return _Place(section, (*self.above, name), self.example)

    def meaning(self, name: str) -> str:
        """Return what the example says of a key, wherever it says it first."""
        places = {(*self.above, form) for form in forms_of(self.section, name)}
        return next(
            (each.meaning for each in self.example if each.place in places and each.meaning), ""
        )


def document() -> str:
    """Return the text of the document."""
    top = _Place(Config, (), said())
    parts = [part for name in top.names() for part in _part(top, name)]
    return "\n".join([_INTRODUCTION, *parts, _PAGE])


def _part(top: _Place, name: str) -> Iterator[str]:
    """Yield what there is to say of a key of the file and of all below it."""
    annotation = Config.model_fields[name].annotation
    kinds = sections_in(annotation)
    yield f"## {name}\n"
    if not kinds:
        yield f"{_HEAD}\n{_row(top, name)}\n"
    elif len(kinds) > 1:
        yield from _receivers([top.below(name, kind) for kind in kinds])
    else:
        yield "A list; each has these keys:\n" if is_list(annotation) else f"{_about(kinds[0])}\n"
        place = top.below(name, kinds[0])
        yield _table(place, place.names())


def _about(section: type[Section]) -> str:
    """Return what a section is, without what is only true of its attributes."""
    return (section.__doc__ or "").partition(".")[0].partition(";")[0] + "."


def _receivers(kinds: list[_Place]) -> Iterator[str]:
    yield "A list; each has these keys, and those of its `type`:\n"
    *others, last = (get_args(kind.section.model_fields["type"].annotation)[0] for kind in kinds)
    must = f"be {', '.join(map(code, others))} or {code(last)}"
    which = row((code("type"), "text", "required", must, "of which kind it is"))
    common = _Place(CommonReceiver, kinds[0].above, kinds[0].example)
    yield _table(common, common.names(), which)
    for name, kind in zip([*others, last], kinds, strict=True):
        yield f"### {name}\n\n{_about(kind.section)}\n"
        own = _Place(kind.section, kind.above, [each for each in kind.example if each.kind == name])
        yield _table(own, [key for key in own.names() if key not in {*common.names(), "type"}])


def _table(place: _Place, names: list[str], *first: str) -> str:
    rows = [line for name in names for line in _rows(place, name)]
    return "\n".join([_HEAD, *first, *rows]) + "\n"


def _rows(place: _Place, name: str) -> Iterator[str]:
    """Yield the row of a key, and those of the keys below it."""
    yield _row(place, name)
    for inner in sections_in(place.section.model_fields[name].annotation):
        below = place.below(name, inner)
        yield from (_row(below, key) for key in below.names() if inner is not HeaderValue)


def _row(place: _Place, name: str) -> str:
    section, field = place.section, place.section.model_fields[name]
    keys = [".".join((*place.above[1:], form)) for form in forms_of(section, name)]
    if HeaderValue in sections_in(field.annotation):
        keys += [f"{name}.NAME", f"{name}.NAME.file", f"{name}.NAME.env"]
    cells = (
        type_of(field),
        default_of(section, name),
        rules_of(section, name),
        place.meaning(name),
    )
    return row((", ".join(map(code, keys)), *cells))
