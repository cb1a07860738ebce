"""docs/configuration.md, generated from the models of the configuration and the example."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import get_args

from docs.generate.example import ExampleKey, read_example_keys
from docs.generate.keys import default_of, forms_of, is_list, rules_of, sections_in, type_of
from docs.generate.table import code, header, row
from exporter.config import Config
from exporter.config.receivers import CommonReceiver, HeaderValue
from exporter.config.section import Section

_INTRODUCTION = """\
# Configuration

Made by `make docs` out of the models in `exporter/config/` and of \
[config.example.yaml](../config.example.yaml), which shows the keys at work. `cartesia-exporter \
check-config --config.file=config.yaml` names every mistake at once, each with its line and its \
path in the file; an unknown key is one. It warns when nobody is notified of a failed fine-tune, \
and when an environment variable has no effect; the agent logs these warnings at its start and at \
each reload. A file has at most 1 MiB and 20,000 keys and values, with what aliases stand for. \
[The page `/config`](#the-page-config) shows what is in force.

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
_HEADER = header("key", "type", "default", "it must", "meaning")


@dataclass(frozen=True, slots=True)
class _SectionDocs:
    """A section, its path in the file, and the keys of the example that may document it."""

    section: type[Section]
    path: tuple[str, ...]
    example: list[ExampleKey]

    def names(self) -> list[str]:
        """Return the keys, each by the first of its forms, in the order of the example."""
        names = [name for name in self.section.model_fields if forms_of(self.section, name)]
        order = [key.path for key in self.example]
        return sorted(names, key=lambda name: self._position(order, name))

    def _position(self, order: list[tuple[str, ...]], name: str) -> int:
        paths = self._paths(name)
        return next((at for at, path in enumerate(order) if path in paths), len(order))

    def _paths(self, name: str) -> set[tuple[str, ...]]:
        return {(*self.path, form) for form in forms_of(self.section, name)}

    def below(self, name: str, section: type[Section]) -> "_SectionDocs":
        """Return the docs of a section that is the value of a key."""
        return _SectionDocs(section, (*self.path, name), self.example)

    def meaning(self, name: str) -> str:
        """Return the first comment on a key in the example."""
        paths = self._paths(name)
        return next((key.comment for key in self.example if key.path in paths and key.comment), "")


def render() -> str:
    """Return the document."""
    top = _SectionDocs(Config, (), read_example_keys())
    chapters = [text for name in top.names() for text in _chapter(top, name)]
    return "\n".join([_INTRODUCTION, *chapters, _PAGE])


def _chapter(top: _SectionDocs, name: str) -> Iterator[str]:
    """Yield the texts about a key of the file and all keys below it."""
    annotation = Config.model_fields[name].annotation
    sections = sections_in(annotation)
    yield f"## {name}\n"
    if not sections:
        yield f"{_HEADER}\n{_row(top, name)}\n"
    elif len(sections) > 1:
        yield from _receivers([top.below(name, section) for section in sections])
    else:
        (section,) = sections
        yield "A list; each has these keys:\n" if is_list(annotation) else f"{_about(section)}\n"
        docs = top.below(name, section)
        yield _table(docs, docs.names())


def _about(section: type[Section]) -> str:
    """Return the first clause of a section's docstring; the rest is about its attributes."""
    return (section.__doc__ or "").partition(".")[0].partition(";")[0] + "."


def _receivers(receivers: list[_SectionDocs]) -> Iterator[str]:
    yield "A list; each has these keys, and those of its `type`:\n"
    types = [get_args(each.section.model_fields["type"].annotation)[0] for each in receivers]
    rule = f"be {', '.join(map(code, types[:-1]))} or {code(types[-1])}"
    type_row = row((code("type"), "text", "required", rule, "of which kind it is"))
    common = _SectionDocs(CommonReceiver, receivers[0].path, receivers[0].example)
    yield _table(common, common.names(), type_row)
    for receiver_type, docs in zip(types, receivers, strict=True):
        yield f"### {receiver_type}\n\n{_about(docs.section)}\n"
        example = [key for key in docs.example if key.receiver_type == receiver_type]
        own = _SectionDocs(docs.section, docs.path, example)
        # A type can have another default than the table of common keys says.
        shared = [
            key
            for key in common.names()
            if default_of(docs.section, key) == default_of(common.section, key)
        ]
        yield _table(own, [key for key in own.names() if key not in {*shared, "type"}])


def _table(docs: _SectionDocs, names: list[str], *first_rows: str) -> str:
    rows = [line for name in names for line in _rows(docs, name)]
    return "\n".join([_HEADER, *first_rows, *rows]) + "\n"


def _rows(docs: _SectionDocs, name: str) -> Iterator[str]:
    """Yield the row of a key, and those of the keys below it."""
    yield _row(docs, name)
    for section in sections_in(docs.section.model_fields[name].annotation):
        below = docs.below(name, section)
        yield from (_row(below, key) for key in below.names() if section is not HeaderValue)


def _row(docs: _SectionDocs, name: str) -> str:
    section, field = docs.section, docs.section.model_fields[name]
    keys = [".".join((*docs.path[1:], form)) for form in forms_of(section, name)]
    if HeaderValue in sections_in(field.annotation):
        keys += [f"{name}.NAME", f"{name}.NAME.file", f"{name}.NAME.env"]
    cells = (type_of(field), default_of(section, name), rules_of(section, name), docs.meaning(name))
    return row((", ".join(map(code, keys)), *cells))
