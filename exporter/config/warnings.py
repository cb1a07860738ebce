"""Warnings about a configuration that is valid and probably not what is meant."""

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from exporter.config.environment import OVERRIDDEN_BY, STORAGE_VARIABLE
from exporter.config.errors import suggest
from exporter.config.mentions import mention_warnings
from exporter.config.models import Config, events_of
from exporter.config.receivers import SlackReceiver
from exporter.config.secrets import EnvironmentSecret
from exporter.config.section import Section, items_of
from exporter.core.match import ACCOUNT, Match, match_values

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
    yield from _unmatched(config)
    for receiver in config.receivers:
        yield from mention_warnings(receiver)
    secrets = {f"${name}" for name in _variables_of_secrets(config)}
    yield from _unused_variables(config, environ, used_variables | secrets)


def _without_notification(config: Config) -> Iterator[str]:
    """Yield the accounts whose failures no receiver gets."""
    notified = [
        Match.of(each.match.patterns).of_account()
        for each in config.receivers
        if "failed" in events_of(each, config.alerts)
    ]
    names = [account.name for account in config.accounts]
    missing = [
        values[ACCOUNT]
        for values in _values_of_accounts(config)
        if not any(_matches(match, values) for match in notified)
    ]
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
    """Yield the receivers that get nothing, nothing about a fine-tune, or no recovery."""
    taken = {
        word
        for receiver in config.receivers
        if not receiver.otherwise and not receiver.match.patterns
        for word in events_of(receiver, config.alerts)
    }
    for receiver in config.receivers:
        events = set(events_of(receiver, config.alerts))
        # A recovery goes to those who were notified of the failure.
        of_fine_tunes = events - {"agent", "recovered"}
        if "recovered" in events and "failed" not in events:
            yield (
                f"receivers[{receiver.name}] gets no recovered: it gets no failed, and a recovery"
                " is sent to those who were notified of the failure"
            )
        if not events:
            yield f"receivers[{receiver.name}] gets nothing: it has no events"
        elif receiver.otherwise and of_fine_tunes and of_fine_tunes <= taken:
            yield (
                f"receivers[{receiver.name}] gets nothing about fine-tunes: receivers without match"
                " take all of its events before otherwise does"
            )


def _unmatched(config: Config) -> Iterator[str]:
    """Yield each ``match`` that fits no account."""
    accounts = _values_of_accounts(config)
    for receiver in config.receivers:
        sections = {"match": receiver.match}
        if isinstance(receiver, SlackReceiver):
            for number, rule in enumerate(receiver.mentions):
                sections[f"mentions[{number}].match"] = rule.match
        for path, section in sections.items():
            match = Match.of(section.patterns).of_account()
            if any(_matches(match, values) for values in accounts):
                continue
            alone = (
                f".{key}"
                for key, pattern in match.patterns.items()
                if not any(_matches(Match({key: pattern}), values) for values in accounts)
            )
            yield (
                f"receivers[{receiver.name}].{path}{next(alone, '')} matches none of the accounts"
            )


def _values_of_accounts(config: Config) -> list[dict[str, str]]:
    return [match_values(each.name, {each.name: each.labels}) for each in config.accounts]


def _matches(match: Match, values: Mapping[str, str]) -> bool:
    # As when events are routed: what cannot be compared counts as a match.
    return match.matches(values, lambda *_: True)


def _unused_variables(
    config: Config, environ: Mapping[str, str], used: frozenset[str] | set[str]
) -> Iterator[str]:
    for name, text in sorted(environ.items()):
        if not text or f"${name}" in used:
            continue
        if name in OVERRIDDEN_BY:
            # Images set the path, whatever is used in its place.
            in_file = isinstance(config.storage.location, Path)
            if name != STORAGE_VARIABLE or (in_file and text != str(config.storage.path)):
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
