"""Warnings about a configuration that is valid and probably not what is meant."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from exporter.config.environment import OVERRIDDEN_BY, STORAGE_VARIABLE
from exporter.config.errors import suggest
from exporter.config.models import Config, events_of
from exporter.config.receivers import CommonReceiver
from exporter.config.secrets import EnvironmentSecret
from exporter.config.section import Section, items_of
from exporter.core.pattern import compile_pattern

_MAX_NAMES: Final = 5
_MAX_NAME: Final = 64
_PREFIX: Final = "CARTESIA_EXPORTER_"
# Kubernetes sets these for a service that is named cartesia-exporter.
_SERVICE_VARIABLE: Final = re.compile(r"CARTESIA_EXPORTER_(SERVICE_(HOST|PORT.*)|PORT(_.*)?)")


def find_warnings(
    config: Config, environ: Mapping[str, str], used_variables: frozenset[str]
) -> Iterator[str]:
    """Yield the warnings about a configuration.

    ``used_variables`` has `$NAME` of each variable that the configuration was made of, without
    those that secrets refer to.
    """
    yield from _without_notification(config)
    yield from _without_effect(config)
    secrets = {f"${name}" for name in _variables_of_secrets(config)}
    yield from _unused_variables(config, environ, used_variables | secrets)


def _without_notification(config: Config) -> Iterator[str]:
    """Yield the accounts whose failures no receiver gets."""
    notified = [each for each in config.receivers if "failed" in events_of(each, config.alerts)]
    names = [account.name for account in config.accounts]
    missing = [name for name in names if not any(_matches(each, name) for each in notified)]
    if not config.receivers:
        yield "nobody is notified when a fine-tune fails: there are no receivers"
    elif not notified:
        yield "nobody is notified when a fine-tune fails: no receiver has failed among its events"
    elif missing == names:
        yield "nobody is notified when a fine-tune fails: no receiver matches an account"
    elif missing:
        yield (
            f"nobody is notified when a fine-tune of account {_listed(missing)} fails: no receiver"
            " with failed among its events matches it"
        )


def _without_effect(config: Config) -> Iterator[str]:
    """Yield the receivers that get nothing, or nothing about a fine-tune."""
    for receiver in config.receivers:
        if not events_of(receiver, config.alerts):
            yield f"receivers[{receiver.name}] gets nothing: it has no events"
        elif not any(_matches(receiver, account.name) for account in config.accounts):
            yield f"receivers[{receiver.name}].match.account matches none of the accounts"


def _matches(receiver: CommonReceiver, account: str) -> bool:
    pattern = receiver.match.account
    return pattern is None or compile_pattern(pattern).matches(account)


def _unused_variables(
    config: Config, environ: Mapping[str, str], used: frozenset[str] | set[str]
) -> Iterator[str]:
    for name, text in sorted(environ.items()):
        if not text or f"${name}" in used:
            continue
        if name in OVERRIDDEN_BY:
            if name != STORAGE_VARIABLE or text != str(config.storage.path):
                yield f"${name} has no effect: the file {OVERRIDDEN_BY[name]}"
        elif name.startswith(_PREFIX) and not _SERVICE_VARIABLE.fullmatch(name):
            hint = suggest(name, OVERRIDDEN_BY)
            yield f"${name[:_MAX_NAME]} has no effect: there is no such variable{hint}"


def _variables_of_secrets(section: Section) -> Iterator[str]:
    for secret in section.secrets.values():
        if isinstance(secret, EnvironmentSecret):
            yield secret.variable
    for name in type(section).model_fields:
        for _, item in items_of(getattr(section, name)):
            if isinstance(item, Section):
                yield from _variables_of_secrets(item)


def _listed(names: Iterable[str]) -> str:
    first, rest = [*names][:_MAX_NAMES], [*names][_MAX_NAMES:]
    return ", ".join(first) + (f" and {len(rest)} more" if rest else "")
