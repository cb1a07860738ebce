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

Flags say how the process runs ([flags.md](flags.md)); a YAML file says what it watches and whom \
it notifies. Without a file, environment variables are enough. \
[config.example.yaml](../config.example.yaml) shows every key and is valid as it is.

`cartesia-exporter check-config --config.file=config.yaml` lists all mistakes at once, each with \
its line and its path in the file. It warns when no receiver is notified of failed fine-tunes, \
and when an environment variable has no effect. The agent logs these warnings at start and at \
each reload.

- **Durations** have the format of Prometheus: `500ms`, `30s`, `5m`, `1h30m`, `2d`.
- **Secrets** have three forms: `KEY` is the text itself, `KEY_file` a file that contains it, and \
`KEY_env` an environment variable that contains it. A file is read again at each use, so that a \
secret can be changed without a restart. A secret is given without quotes, `NAME=` or `Bearer ` \
around it; these are refused.
- **Paths** are relative to the folder of the configuration file, `storage.path` to the working \
directory.
- **Null** as a value means that the key is not set. An unknown key is a mistake.
- **Limits**: 1 MiB, and 20,000 keys and values including those that aliases stand for.

TLS, users and limits of the web server are in [a file of their own](web-config.md). This \
document is generated from `exporter/config/` and config.example.yaml by `make docs`.

## Environment variables

| variable | meaning |
|---|---|
| `CARTESIA_API_KEY`, `CARTESIA_API_KEY_FILE` | API key of the account `default`, or the file \
that contains it; used if the file has no accounts |
| `CARTESIA_BASE_URL`, `CARTESIA_VERSION` | base URL and API version of that account |
| `CARTESIA_EXPORTER_SLACK_URL`, `CARTESIA_EXPORTER_WEBHOOK_URL` | URLs of the receivers `slack` \
and `webhook`; used if the file has no receivers |
| `CARTESIA_EXPORTER_STORAGE_URL` | URL of the PostgreSQL database with the state; used if the \
file has neither `storage.path` nor `storage.url`, instead of the next variable |
| `CARTESIA_EXPORTER_STORAGE_PATH` | the state file; used if the file does not have \
`storage.path` |
| `HTTPS_PROXY`, `ALL_PROXY` | proxy for https; used without `proxy_url` |
| `NO_PROXY` | hosts that are reached without this proxy, separated by commas or spaces: `*`, a \
domain and its subdomains (`example.com`, `.example.com`), subdomains only (`*.example.com`), an \
IP address or a range (`10.0.0.0/8`, `fd00::/8`). A domain or address may have a port \
(`example.com:8443`, `[::1]:8443`). |
| `SSL_CERT_FILE`, `SSL_CERT_DIR` | trusted CA certificates; used without `ca_file`. \
`SSL_CERT_FILE` and `ca_file` are read again when the file changes. |

## Reload

SIGHUP reloads the file. So does `POST /-/reload`, if the agent was started with \
`--web.enable-lifecycle`; requests that a page of another site makes a browser send are refused \
with 403. The answer is 200, or 500 with all mistakes. After a mistake the old configuration \
stays in force, and `cartesia_exporter_config_last_reload_successful` is 0 until a reload \
succeeds.

- Accounts and receivers whose settings did not change are not interrupted.
- A changed receiver is tried at once. An account whose key was refused is polled at its next \
interval.
- Several accounts that are added or changed together start one after another, within the \
interval and within 5 s. A poll that is under way has 8 s to finish, which does not delay other \
accounts.
- The series of a removed account disappear. Its history stays in the state and is used if the \
account is added again.
- Flags and `storage.path` need a restart.
"""
_PAGE = """\
## The page /config

It shows the configuration in force as YAML: the file, environment variables and defaults. For a \
receiver without `events` it shows the events that it gets. Keys that are not set are left out.

Secrets are shown as `<secret>`: keys, tokens, passwords, signing secrets, the values of headers, \
the URLs of receivers, proxies and the heartbeat, and the texts of a `template`, because some \
services expect their key in the body. Paths of secret files and names of secret variables are \
shown. If the web configuration has users, the page needs a password.
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
        names += self.section.EXTRA_KEYS
        order = [key.path for key in self.example]
        return sorted(names, key=lambda name: self._position(order, name))

    def _position(self, order: list[tuple[str, ...]], name: str) -> int:
        paths = self._paths(name)
        return next((at for at, path in enumerate(order) if path in paths), len(order))

    def _paths(self, name: str) -> set[tuple[str, ...]]:
        """Return the paths in the example that document a key."""
        pattern = self.section.EXTRA_KEYS.get(name)
        if pattern is not None:
            below = {key.path for key in self.example if key.path[:-1] == self.path}
            return {path for path in below if pattern.fullmatch(path[-1])}
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
    type_row = row((code("type"), "text", "required", rule, "type of the receiver"))
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
    field = docs.section.model_fields.get(name)
    for section in () if field is None else sections_in(field.annotation):
        below = docs.below(name, section)
        yield from (_row(below, key) for key in below.names() if section is not HeaderValue)


def _row(docs: _SectionDocs, name: str) -> str:
    section, field = docs.section, docs.section.model_fields.get(name)
    keys = [".".join((*docs.path[1:], form)) for form in forms_of(section, name)]
    if field is not None and HeaderValue in sections_in(field.annotation):
        keys += [f"{name}.NAME", f"{name}.NAME.file", f"{name}.NAME.env"]
    value_type = "text" if field is None else type_of(field)
    cells = (value_type, default_of(section, name), rules_of(section, name), docs.meaning(name))
    return row((", ".join(map(code, keys)), *cells))
