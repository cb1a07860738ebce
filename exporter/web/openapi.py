"""The OpenAPI document of the JSON API, made from the types that it serves."""

from typing import Any, Final, get_args

import msgspec

from exporter import __version__
from exporter.core.events import EVENT_TYPES
from exporter.store.fine_tunes import SORTS
from exporter.web.answers import (
    ChangeAnswer,
    ErrorAnswer,
    MuteAnswer,
    StatusAnswer,
    StoryAnswer,
)
from exporter.web.api import LIST_TYPES, LISTS, PREFIX
from exporter.web.mutes import MuteEnd, NewMute
from exporter.web.query import (
    DEFAULT_ELEMENTS,
    DELIVERY_STATES,
    EVENT_WORDS,
    LONGEST_ID,
    LONGEST_TEXT,
    MOST_ELEMENTS,
)

_UNITS: Final = "".join(f"([0-9]{{1,4}}{unit})?" for unit in ("y", "w", "d", "h", "m", "s", "ms"))
_DURATION: Final = f"^(0|{_UNITS})$"

_TEXT: Final = {"type": "string", "maxLength": LONGEST_TEXT}
_ID: Final = {"type": "string", "maxLength": LONGEST_ID}


def _several(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": schema, "maxItems": 20}


_PARAMETERS: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "account": ("Name of an account.", _TEXT),
    "status": (
        "Status: a label of the metrics, a text of the API, `stuck` or `removed`.",
        _several(_TEXT),
    ),
    "model_id": ("Model.", _TEXT),
    "dataset": ("Dataset.", _TEXT),
    "q": ("Part of a name or id of a fine-tune, case-insensitive.", _TEXT),
    "since": (
        "Only changes of the last duration, such as `24h`.",
        {"type": "string", "pattern": _DURATION, "maxLength": 40},
    ),
    "sort": ("Order; a minus sign reverses it.", {"type": "string", "enum": list(SORTS)}),
    "fine_tune": ("Id of a fine-tune, or its beginning.", _ID),
    "receiver": ("Name of a receiver.", _TEXT),
    "state": (
        "State of a delivery.",
        _several({"type": "string", "enum": list(DELIVERY_STATES)}),
    ),
    "active": ("Only the active mutes (`true`) or those that have ended.", {"type": "boolean"}),
    "type": (
        "Type of an event, or its last word, or `agent`.",
        _several({"type": "string", "enum": [*EVENT_WORDS, *EVENT_TYPES]}),
    ),
    "limit": (
        "Maximum number of elements.",
        {
            "type": "integer",
            "minimum": 1,
            "maximum": MOST_ELEMENTS,
            "default": DEFAULT_ELEMENTS,
        },
    ),
    "starting_after": ("Id of the last element of the previous page.", _ID),
    "after_account": (
        "Account of the fine-tune `starting_after`; required if several accounts have its id.",
        _ID,
    ),
}

_SUMMARIES: Final = {
    "accounts": "Accounts and the age of their data",
    "fine-tunes": "Fine-tunes",
    "events": "Events with their deliveries, newest first",
    "deliveries": "Deliveries, newest first",
    "receivers": "Receivers",
    "mutes": "Mutes, newest first",
}

_ERRORS: Final = {
    "400": "A parameter or the body is not valid.",
    "401": "The web configuration has users, and the credentials are not valid.",
    "403": "Changes are disabled, or the request came from another site.",
    "404": "There is no such element.",
    "409": "The delivery cannot be changed.",
    "415": "The request is not application/json.",
    "503": "The state cannot be read at present; `Retry-After` says when to try again.",
}


def document() -> dict[str, Any]:
    """Return the document, in OpenAPI 3.1."""
    answers = (StatusAnswer, StoryAnswer, ChangeAnswer, MuteAnswer, ErrorAnswer)
    types = (*LIST_TYPES.values(), *answers, *_BODIES)
    schemas, components = msgspec.json.schema_components(types, ref_template=_REFERENCE)
    by_type = dict(zip(types, schemas, strict=True))
    paths: dict[str, Any] = {
        "/status": _get(
            "Age of the data, failures of the last day, accounts and receivers", StatusAnswer
        ),
    }
    for kind, (parameters, _) in LISTS.items():
        paths[f"/{kind}"] = _get(_SUMMARIES[kind], LIST_TYPES[kind], parameters)
    paths["/fine-tunes/{account}/{id}"] = _get("History of a fine-tune", StoryAnswer)
    paths["/fine-tunes/{account}/{id}"]["parameters"] = [_in_path("account"), _in_path("id")]
    for path, operation in _POSTS.items():
        paths.setdefault(path, {}).update(_post(*operation))
        if "{id}" in path:
            paths[path]["parameters"] = [_in_path("id")]
    found = {
        "openapi": "3.1.0",
        "info": {
            "title": "cartesia-exporter",
            "version": __version__,
            "description": "Fine-tunes, failures and notifications, as the agent observed them.",
        },
        "servers": [{"url": PREFIX}],
        "paths": {path: _resolved(item, by_type) for path, item in paths.items()},
        "components": {"schemas": components},
    }
    return _with_readable_names(found)


_REFERENCE: Final = "#/components/schemas/{name}"

_LIFECYCLE: Final = "needs `--web.enable-lifecycle`"

_POSTS: Final[dict[str, tuple[str, Any, Any]]] = {
    "/deliveries/{id}/retry": (
        f"Retry a delivery and its message now; {_LIFECYCLE}",
        None,
        ChangeAnswer,
    ),
    "/deliveries/{id}/discard": (
        f"Discard a delivery and its message; {_LIFECYCLE}",
        None,
        ChangeAnswer,
    ),
    "/mutes": (f"Mute fine-tunes; {_LIFECYCLE}", NewMute, MuteAnswer),
    "/mutes/{id}/end": (f"End a mute; {_LIFECYCLE}", MuteEnd, MuteAnswer),
}
"""Summary, body and answer of the requests that change something."""

_BODIES: Final = tuple(body for _, body, _ in _POSTS.values() if body is not None)


def _get(summary: str, answer: Any, parameters: frozenset[str] = frozenset()) -> dict[str, Any]:
    described = []
    for name, (description, schema) in _PARAMETERS.items():
        if name in parameters:
            one = {"name": name, "in": "query", "description": description, "schema": schema}
            described.append(one)
    responses = {"200": ("The answer.", answer), **_errors("400", "401", "404", "503")}
    responses["304"] = ("Nothing changed since the answer with the ETag of `If-None-Match`.", None)
    operation = {"summary": summary, "parameters": described, "responses": responses}
    return {"get": operation}


def _post(summary: str, body: Any, answer: Any) -> dict[str, Any]:
    errors = _errors("400", "401", "403", "404", "409", "415", "503")
    operation = {
        "summary": summary,
        "requestBody": body,
        "responses": {"200": ("The answer.", answer), **errors},
    }
    return {"post": operation}


def _errors(*statuses: str) -> dict[str, tuple[str, Any]]:
    return {status: (_ERRORS[status], ErrorAnswer) for status in statuses}


def _in_path(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {**_TEXT, "minLength": 1}}


def _resolved(item: dict[str, Any], schemas: dict[Any, Any]) -> dict[str, Any]:
    """Return a path with the schemas of its body and of its answers in place of their types."""
    for operation in item.values():
        if isinstance(operation, dict):
            if "requestBody" in operation:
                schema = schemas.get(operation["requestBody"], {"type": "object"})
                content = {"application/json": {"schema": schema}}
                operation["requestBody"] = {"required": True, "content": content}
            operation["responses"] = {
                status: {
                    "description": description,
                    **(
                        {}
                        if answer is None
                        else {"content": {_content_type(status): {"schema": schemas[answer]}}}
                    ),
                }
                for status, (description, answer) in sorted(operation["responses"].items())
            }
    return item


def _content_type(status: str) -> str:
    # The refusal of a missing password is that of all paths.
    return "text/plain" if status == "401" else "application/json"


def _with_readable_names(found: dict[str, Any]) -> dict[str, Any]:
    """Return the document with FineTuneList in place of ListAnswer_FineTuneRecord_."""
    text = msgspec.json.encode(found).decode()
    for listed_type in LIST_TYPES.values():
        name = get_args(listed_type)[0].__name__
        listed = f"{name.removesuffix('Record')}List"
        text = text.replace(f"ListAnswer_{name}_", listed).replace(f"ListAnswer[{name}]", listed)
    decoded: dict[str, Any] = msgspec.json.decode(text)
    return decoded
