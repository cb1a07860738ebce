"""The sections of the configuration file except receivers, their defaults and limits."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationInfo,
    field_validator,
)

from exporter.config.errors import Problem
from exporter.config.receivers import TROUBLE_SUBSCRIPTIONS, CommonReceiver, ProxyUrl, Receiver
from exporter.config.routing import routing_problems
from exporter.config.secrets import CaFile, StoragePath
from exporter.config.section import Section, secret_key
from exporter.config.types import (
    DistinctItems,
    Duration,
    Items,
    Name,
    between,
    check_api_key,
    check_database_url,
    check_date,
    check_printable,
    check_url,
    check_web_url,
    check_without_query,
    check_without_userinfo,
    full_match,
    not_empty,
    passes,
    without_repeats,
)
from exporter.core.events import DEFAULT_SEVERITIES, FineTuneSubscription, Subscription
from exporter.core.model import FAILED
from exporter.core.status import NOT_A_FAILURE, canonical_status
from exporter.core.text import format_duration
from exporter.store.location import PostgresLocation, StoreLocation

DEFAULT_ACCOUNT = "default"

GRAFANA_PLACEHOLDERS = ("account", "model_id", "id", "from_ms", "to_ms")

_DEFAULT_INTERVAL = 60.0

_LONGEST_STATUS = 100
_MAX_FAILED_STATUSES = 20

_RESERVED_LABELS = {
    *("account", "model_id", "status", "language", "dataset", "from_status", "to_status"),
    *("fine_tune_id", "le", "reason", "receiver", "code", "job", "instance"),
    *("alertname", "severity"),
}


def _check_label_name(name: str) -> None:
    if name.startswith("__") or name in _RESERVED_LABELS:
        raise ValueError("must not be a label that the agent or Prometheus sets itself")


LabelName = Annotated[
    str,
    full_match(r"[a-zA-Z_][a-zA-Z0-9_]*", "must be a valid name of a Prometheus label"),
    passes(_check_label_name),
]


class Account(Section):
    """An account of the Cartesia API."""

    SECRETS = (secret_key("api_key", check_api_key),)

    name: Name = DEFAULT_ACCOUNT
    api_key: SecretStr | None = None
    api_key_file: str | None = None
    api_key_env: str | None = None
    allow_http: bool = False
    base_url: str = "https://api.cartesia.ai"
    api_version: Annotated[str, passes(check_date)] = "2026-03-01"
    labels: dict[LabelName, str] = Field(default_factory=dict)
    ca_file: CaFile | None = None
    proxy_url: ProxyUrl | None = None

    @field_validator("base_url")
    @classmethod
    def _check_base_url(cls, url: str, info: ValidationInfo) -> str:
        check_without_userinfo(url)
        check_without_query(url)
        (check_web_url if info.data.get("allow_http") else check_url)(url)
        return url.rstrip("/")


class Poll(Section):
    """How the API is read; durations in seconds."""

    interval: Annotated[Duration, between("1s", "1d")] = _DEFAULT_INTERVAL
    timeout: Annotated[Duration, between("100ms", "1d")] = Field(
        default_factory=lambda poll: min(poll.get("interval", _DEFAULT_INTERVAL) * 5 / 6, 300.0)
    )
    page_size: Annotated[int, between(1, 100)] = 100
    concurrency: Annotated[int, between(1, 16)] = 8
    requests_per_second: Annotated[float, between(0, 1000)] = 0.0
    stale_after: Annotated[Duration, between("2s", "30d")] = Field(
        default_factory=lambda poll: max(poll.get("interval", _DEFAULT_INTERVAL) * 3, 300.0)
    )

    @field_validator("timeout")
    @classmethod
    def _check_timeout(cls, timeout: float, info: ValidationInfo) -> float:
        interval = info.data.get("interval")
        if interval is not None and timeout >= interval:
            raise ValueError(f"must be shorter than poll.interval, {format_duration(interval)}")
        return timeout

    @field_validator("stale_after")
    @classmethod
    def _check_stale_after(cls, stale_after: float, info: ValidationInfo) -> float:
        least = 2 * info.data.get("interval", 0.0)
        if stale_after < least:
            raise ValueError(f"must be at least {format_duration(least)}, twice poll.interval")
        return stale_after


class Metrics(Section):
    """Labels and number of the series."""

    labels: DistinctItems[Literal["model_id", "language", "dataset"]] = ("model_id",)
    max_models: Annotated[int, between(1, 100_000)] = 50
    per_fine_tune: bool = False
    max_fine_tune_series: Annotated[int, between(1, 100_000)] = 1000


Severity = Annotated[
    str, full_match(r"[a-zA-Z][a-zA-Z0-9_-]{0,63}", "must be a word such as warning or critical")
]


class Severities(Section):
    """The severity of problems: the label of alerts, and the sign of messages in chat."""

    failed: Severity = DEFAULT_SEVERITIES["failed"]
    stuck: Severity = DEFAULT_SEVERITIES["stuck"]
    agent: Severity = DEFAULT_SEVERITIES["agent"]


def _check_failed_status(status: str) -> None:
    canonical = canonical_status(status)
    if not canonical or len(status) > _LONGEST_STATUS:
        raise ValueError(f"must be 1 to {_LONGEST_STATUS} characters")
    if canonical in NOT_A_FAILURE:
        raise ValueError(f"must not contain {', '.join(sorted(NOT_A_FAILURE))}: these never fail")


def _check_failed_statuses(statuses: tuple[str, ...]) -> tuple[str, ...]:
    if len(statuses) > _MAX_FAILED_STATUSES:
        raise ValueError(f"must have at most {_MAX_FAILED_STATUSES} statuses")
    without_repeats(tuple(map(canonical_status, statuses)))
    return statuses


def _check_link(url: str, placeholders: Sequence[str]) -> None:
    """Refuse anything but a URL that has braces around these placeholders only, behind its host."""
    filled, listed = url, [f"{{{name}}}" for name in placeholders]
    for placeholder in listed:
        filled = filled.replace(placeholder, "1")
    if "{" in filled or "}" in filled:
        names = " and ".join(filter(None, (", ".join(listed[:-1]), listed[-1])))
        raise ValueError(f"must not contain braces other than {names}")
    parts = check_web_url(filled)
    check_without_userinfo(filled)
    # The API's text would choose the host.
    if urlsplit(url).netloc != parts.netloc:
        raise ValueError("must not have a placeholder in its host")


class Alerts(Section):
    """Events, their statuses and how they are notified; durations in seconds."""

    events: DistinctItems[FineTuneSubscription] = ("failed",)
    failed_statuses: Annotated[
        Items[Annotated[str, passes(_check_failed_status)]], AfterValidator(_check_failed_statuses)
    ] = (FAILED,)
    stuck_after: Annotated[Duration, between("1m", "1y")] = 6 * 3600.0
    first_run: Literal["summary", "silent", "alert"] = "summary"
    group_wait: Annotated[Duration, between("0s", "5m")] = 5.0
    digest_threshold: Annotated[int, between(1, 1000)] = 5
    playground_url: str = "https://play.cartesia.ai/pro-voice-cloning"
    grafana_url: str | None = None
    poll_failing_after: Annotated[Duration, between("0s", "1y")] = 600.0
    severities: Severities = Field(default_factory=Severities)

    @field_validator("playground_url")
    @classmethod
    def _check_playground_url(cls, url: str) -> str:
        _check_link(url, ("id",))
        return url

    @field_validator("grafana_url")
    @classmethod
    def _check_grafana_url(cls, url: str | None) -> str | None:
        if url is not None:
            _check_link(url, GRAFANA_PLACEHOLDERS)
        return url


class Storage(Section):
    """Where the state is stored; durations in seconds."""

    SECRETS = (
        secret_key("url", check_database_url, required=False),
        secret_key("password", check_printable, required=False),
    )

    path: StoragePath = Path("data/state.db")
    url: SecretStr | None = None
    url_file: str | None = None
    url_env: str | None = None
    password: SecretStr | None = None
    password_file: str | None = None
    password_env: str | None = None
    lease: Annotated[Duration, between("5s", "5m")] = 15.0
    pool: Annotated[int, between(1, 32)] = 4
    retention: Annotated[Duration, between("1h", "10y")] = 90 * 86400.0

    @classmethod
    def raw_problems(cls, given: Mapping[Any, Any]) -> Iterator[Problem]:
        """Yield the problems of the keys that depend on each other."""
        yield from super().raw_problems(given)
        url = next((key for key in ("url", "url_file", "url_env") if key in given), None)
        if url is None:
            for key in ("password", "password_file", "password_env"):
                if key in given:
                    yield (key,), "needs storage.url: a file has no password"
        elif "path" in given:
            yield (url,), "is given together with path; keep one of them"
        elif find_spec("psycopg") is None:  # not imported: that takes 0.3 s
            yield (url,), "needs the extra: pip install 'cartesia-exporter[postgres]'"

    @property
    def location(self) -> StoreLocation:
        """The state file, or the database of PostgreSQL."""
        if (url := self.secrets.get("url")) is None:
            return self.path
        return PostgresLocation(url, self.secrets.get("password"), self.lease, self.pool)


class Config(Section):
    """The whole configuration."""

    # The hint at allow_http is left out: the heartbeat has no such key.
    SECRETS = (secret_key("heartbeat_url", partial(check_url, remedy=""), required=False),)

    accounts: Annotated[Items[Account], AfterValidator(not_empty)] = ()
    poll: Poll = Field(default_factory=Poll)
    metrics: Metrics = Field(default_factory=Metrics)
    alerts: Alerts = Field(default_factory=Alerts)
    receivers: Items[Receiver] = ()
    heartbeat_url: SecretStr | None = None
    heartbeat_url_file: str | None = None
    heartbeat_url_env: str | None = None
    storage: Storage = Field(default_factory=Storage)

    _warnings: tuple[str, ...] = PrivateAttr(())

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is valid and probably not meant, as texts."""
        return self._warnings

    def set_warnings(self, warnings: Iterable[str]) -> None:
        """Keep the warnings about this configuration."""
        self._warnings = tuple(warnings)

    @classmethod
    def raw_problems(cls, given: Mapping[Any, Any]) -> Iterator[Problem]:
        """Yield the problems across sections: no account, names used twice, and routing."""
        yield from super().raw_problems(given)
        if "accounts" not in given:
            text = (
                "missing; set CARTESIA_API_KEY or CARTESIA_API_KEY_FILE, or list them in the file"
            )
            yield ("accounts",), text
        yield from _repeated_names("accounts", given.get("accounts"), DEFAULT_ACCOUNT)
        yield from _repeated_names("receivers", given.get("receivers"), None)
        yield from routing_problems(given)


def _repeated_names(key: str, items: object, default: str | None) -> Iterator[Problem]:
    names: set[str] = set()
    for index, item in enumerate(items if isinstance(items, list) else ()):
        name = item.get("name") if isinstance(item, dict) else None
        name = default if name is None and isinstance(item, dict) else name
        if isinstance(name, str):
            if name in names:
                yield (key, index, "name"), f"is also the name of an earlier {key[:-1]}; rename one"
            names.add(name)


def events_of(receiver: CommonReceiver, alerts: Alerts) -> tuple[Subscription, ...]:
    """Return a receiver's own ``events``, else ``alerts.events`` and agent.

    A receiver for troubles gets only those of them that include one.
    """
    events: tuple[Subscription, ...] = (
        (*alerts.events, "agent") if receiver.events is None else receiver.events
    )
    if receiver.TROUBLES_ONLY:
        return tuple(word for word in events if word in TROUBLE_SUBSCRIPTIONS)
    return events
