"""The configuration of receivers: the keys of each type, their defaults and limits."""

import re
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import Annotated, Any, ClassVar, Literal, NoReturn, get_args

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    SecretStr,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    field_validator,
    model_serializer,
)
from pydantic_core import CoreSchema
from pydantic_core.core_schema import with_info_plain_validator_function

from exporter.config.errors import Problem, choice, suggest, validation_error
from exporter.config.match import Match, Mention, MentionRule
from exporter.config.secrets import CaFile
from exporter.config.section import SecretKey, Section, secret_key
from exporter.config.services import service_hint
from exporter.config.types import (
    DistinctItems,
    Duration,
    Items,
    Name,
    between,
    check_bare,
    check_header_text,
    check_printable,
    check_proxy_url,
    check_signing_secret,
    check_token,
    check_url,
    check_web_url,
    check_without_query,
    full_match,
    not_empty,
    passes,
    without_repeats,
)
from exporter.core.events import SUBSCRIPTIONS, TROUBLES, Subscription

TROUBLE_SUBSCRIPTIONS = tuple(word for word, types in SUBSCRIPTIONS.items() if types & TROUBLES)
"""The words of ``events`` that include an event type which is a trouble."""

_CHAT_GROUP_INTERVAL = 300.0
"""Default of ``group_interval`` in seconds where people read every message."""

_RESERVED_HEADERS = {"host", "content-length", "content-type", "transfer-encoding", "connection"}
_URL_KEY = secret_key("url", check_url, check_http=check_web_url)


def _check_header_name(name: str) -> None:
    lower = name.lower()
    if lower in _RESERVED_HEADERS or lower.startswith("webhook-"):
        raise ValueError("must not be a header that the agent sets itself")


def _header_value(value: object) -> object:
    if isinstance(value, str):
        return {"text": value}
    if not isinstance(value, dict):
        raise ValueError("must be text, {file: PATH} or {env: NAME}")  # noqa: TRY004  # for pydantic
    return value


def _check_first_line(text: str) -> None:
    from exporter.receivers.slack import escape_text  # noqa: PLC0415 - the next one imports Jinja
    from exporter.receivers.template_check import line_fault  # noqa: PLC0415

    if fault := line_fault(text, escape_text):
        raise ValueError(fault)


def _check_apprise_url(url: str) -> None:
    check_bare(url)
    check_printable(url)
    # Apprise would split a text into several URLs. A retry for one that failed would then repeat
    # the message at the others; separate receivers have separate queues.
    if re.search(r"[\s,][a-zA-Z][a-zA-Z0-9+.-]*://", url) is not None:
        raise ValueError("must be one URL; give each service a receiver of its own")
    if re.match(r"[a-zA-Z][a-zA-Z0-9+.-]*://", url) is None:
        raise ValueError("must be an Apprise URL such as mailto://user:password@host")


def _masked_leaves(value: object) -> object:
    """Return a template with its keys and the lengths of its lists, and a secret for each value."""
    match value:
        case dict():
            return {key: _masked_leaves(item) for key, item in value.items()}
        case list():
            return [_masked_leaves(item) for item in value]
        case _:
            return SecretStr(str(value))


GroupInterval = Annotated[Duration, between("0s", "1d")]
ProxyUrl = Annotated[SecretStr, passes(check_proxy_url)]
HeaderName = Annotated[
    str,
    full_match(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", "must be a valid name of an HTTP header"),
    passes(_check_header_name),
]
SecretName = Annotated[
    str, full_match(r"[a-zA-Z][a-zA-Z0-9_]{0,63}", "must be letters, digits and underscores")
]
Template = Annotated[dict[str, Any], PlainSerializer(_masked_leaves)]
"""The body of a webhook. Its values are masked: some services expect their key in the body."""


class HeaderValue(Section):
    """The value of a header: text, {file: PATH} or {env: NAME}; treated as a secret."""

    SECRETS = (SecretKey("text", "file", "env", check_header_text),)

    text: SecretStr | None = None
    file: str | None = None
    env: str | None = None

    @model_serializer(mode="wrap")
    def _as_in_file(self, handler: SerializerFunctionWrapHandler) -> object:
        return handler(self) if self.text is None else self.text


class BasicAuth(Section):
    """A user name and a password for HTTP basic authentication."""

    SECRETS = (secret_key("password", check_printable),)

    username: Annotated[
        str, full_match(r"[^:\x00-\x1f\x7f]+", 'must be text without ":" and control characters')
    ]
    password: SecretStr | None = None
    password_file: str | None = None
    password_env: str | None = None


class CommonReceiver(Section):
    """The keys of every type of receiver; durations in seconds."""

    model_config = ConfigDict(defer_build=True)  # until there is a receiver of the type
    TROUBLES_ONLY: ClassVar[bool] = False
    """Whether the receiver gets problems only."""

    name: Name
    allow_http: bool = False
    events: DistinctItems[Subscription] | None = None
    match: Match = Field(default_factory=Match)
    otherwise: bool = False
    group_interval: GroupInterval = 0.0
    timeout: Annotated[Duration, between("100ms", "5m")] = 15.0
    max_age: Annotated[Duration, between("1m", "1y")] = 72 * 3600.0
    ca_file: CaFile | None = None
    proxy_url: ProxyUrl | None = None

    @classmethod
    def raw_problems(cls, given: Mapping[Any, Any]) -> Iterator[Problem]:
        """Yield the problems of the mapping, and ``match`` beside ``otherwise``."""
        yield from super().raw_problems(given)
        if given.get("otherwise") is True and given.get("match"):
            yield ("match",), "must be left out, or otherwise must be false"

    @model_serializer(mode="wrap")
    def _name_and_type_first(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Pydantic puts the keys of this class first, and so ``type`` far down.
        keys: dict[str, Any] = handler(self)
        return {key: keys[key] for key in ("name", "type") if key in keys} | keys


class _UrlReceiver(CommonReceiver):
    SECRETS: ClassVar[tuple[SecretKey, ...]] = (_URL_KEY,)

    url: SecretStr | None = None
    url_file: str | None = None
    url_env: str | None = None


class SlackReceiver(_UrlReceiver):
    """An incoming webhook of Slack, or of a service that accepts its format."""

    type: Literal["slack"]
    group_interval: GroupInterval = _CHAT_GROUP_INTERVAL
    mention: Mention | None = None
    mention_events: DistinctItems[Subscription] = ("failed", "stuck", "agent")
    mentions: Items[MentionRule] = ()
    text: Annotated[str, passes(_check_first_line)] | None = None


class WebhookReceiver(_UrlReceiver):
    """A JSON webhook, signed if it has a secret."""

    SECRETS = (
        _URL_KEY,
        secret_key("secret", check_signing_secret, required=False),
        secret_key("bearer_token", check_token, required=False),
    )

    type: Literal["webhook"]
    format: Literal["standard", "alertmanager", "template"] = "standard"
    template_secrets: dict[SecretName, Annotated[HeaderValue, BeforeValidator(_header_value)]] = (
        Field(default_factory=dict)
    )
    template: Template | None = Field(default=None, validate_default=True)
    secret: SecretStr | None = None
    secret_file: str | None = None
    secret_env: str | None = None
    bearer_token: SecretStr | None = None
    bearer_token_file: str | None = None
    bearer_token_env: str | None = None
    basic_auth: BasicAuth | None = None
    headers: dict[HeaderName, Annotated[HeaderValue, BeforeValidator(_header_value)]] = Field(
        default_factory=dict
    )

    @field_validator("template")
    @classmethod
    def _check_template(
        cls, template: dict[str, Any] | None, info: ValidationInfo
    ) -> dict[str, Any] | None:
        is_used = info.data.get("format", "standard") == "template"
        if is_used and not template:
            raise ValueError("missing; format: template needs a map")
        if template is not None and not is_used and "format" in info.data:
            raise ValueError("must be left out, or format must be template")
        if template:
            from exporter.receivers.template_check import body_faults  # noqa: PLC0415 - as above

            secrets = info.data.get("template_secrets", {})
            if faults := body_faults(template, tuple(secrets)):
                raise validation_error("template", faults)
        return template

    @field_validator("basic_auth")
    @classmethod
    def _check_one_login(cls, basic_auth: BasicAuth | None, info: ValidationInfo) -> Any:
        if basic_auth is not None and _authorization_keys(info.data):
            raise ValueError("is given together with bearer_token; keep one of them")
        return basic_auth

    @field_validator("headers")
    @classmethod
    def _check_headers(
        cls, headers: dict[str, HeaderValue], info: ValidationInfo
    ) -> dict[str, HeaderValue]:
        names = [name.lower() for name in headers]
        if len(set(names)) != len(names):
            raise ValueError("must not name a header twice")
        if "authorization" in names and _authorization_keys(info.data):
            raise ValueError("must not set Authorization beside bearer_token or basic_auth")
        return headers


class AlertmanagerReceiver(CommonReceiver):
    """The members of an Alertmanager cluster; hold is in seconds."""

    TROUBLES_ONLY = True

    type: Literal["alertmanager"]
    urls: Annotated[
        Items[Annotated[SecretStr, passes(check_web_url, check_without_query)]],
        AfterValidator(not_empty),
        AfterValidator(without_repeats),
    ]
    hold: Annotated[Duration, between("1m", "30d")] = 3600.0

    @field_validator("events")
    @classmethod
    def _check_troubles(
        cls, events: tuple[Subscription, ...] | None
    ) -> tuple[Subscription, ...] | None:
        *others, last = TROUBLE_SUBSCRIPTIONS
        if events is not None and not {*others, last}.issuperset(events):
            raise ValueError(
                f"must be of {', '.join(others)} and {last}: Alertmanager gets problems only"
            )
        return events


class AppriseReceiver(_UrlReceiver):
    """A service that the Apprise library supports."""

    SECRETS = (secret_key("url", _check_apprise_url),)

    type: Literal["apprise"]
    group_interval: GroupInterval = _CHAT_GROUP_INTERVAL

    @field_validator("type")
    @classmethod
    def _check_installed(cls, receiver_type: str) -> str:
        # Not imported: an import would double the time that a start takes.
        if find_spec("apprise") is None:
            raise ValueError("needs the extra: pip install 'cartesia-exporter[apprise]'")
        return receiver_type

    @field_validator("proxy_url")
    @classmethod
    def _check_no_proxy(cls, _: SecretStr | None) -> NoReturn:
        raise ValueError("must be left out; Apprise uses HTTPS_PROXY, HTTP_PROXY and NO_PROXY")


AnyReceiver = SlackReceiver | WebhookReceiver | AlertmanagerReceiver | AppriseReceiver
_CLASSES: dict[str, type[CommonReceiver]] = {
    get_args(each.model_fields["type"].annotation)[0]: each for each in get_args(AnyReceiver)
}
_TYPES = sorted(_CLASSES)


class _ByType:
    """Has pydantic validate a receiver by the class of its type.

    Its own discriminator would build the validators of all types at each start, which takes as long
    as those of the rest of the configuration.
    """

    @staticmethod
    def __get_pydantic_core_schema__(*_: object) -> CoreSchema:
        return with_info_plain_validator_function(_read_receiver)


def _read_receiver(given: object, info: ValidationInfo) -> CommonReceiver:
    if not isinstance(given, dict):
        raise ValueError("must be a mapping of keys to values")  # noqa: TRY004 - for pydantic
    receiver_type = given.get("type")
    if receiver_type not in _TYPES:
        hint = service_hint(receiver_type) or suggest(receiver_type, _TYPES)
        text = f"must be {choice(_TYPES)}{hint}"
        if "type" not in given:
            text = f"missing; it must be {choice(_TYPES)}"
        raise validation_error("Receiver", [(("type",), text)])
    return _CLASSES[receiver_type].model_validate(given, context=info.context)


Receiver = Annotated[AnyReceiver, _ByType]


def _authorization_keys(data: Mapping[str, Any]) -> list[str]:
    keys = ("bearer_token", "bearer_token_file", "bearer_token_env", "basic_auth")
    return [key for key in keys if data.get(key) is not None]
