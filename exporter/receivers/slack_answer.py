"""Outcome of an answer from Slack, or from a service that speaks its format.

A success status alone is no delivery: a login page or a captive portal answers 200, too. Slack
answers ``ok``, a workflow's webhook {"ok": true} (docs.slack.dev, "Sending messages using incoming
webhooks", "webhooks in workflows"), Mattermost and Discord's /slack ``ok``, Rocket.Chat
{"success": true}, Zulip {"result": "success"}, and others JSON or nothing.
"""

import json
from http import HTTPStatus
from typing import Any, Final

from msgspec.structs import replace

from exporter.core.retry import Attempt, Outcome
from exporter.http_client import Response
from exporter.receivers.receiver import answered, is_page, unanswered

SLACK_HOSTS: Final = frozenset({"hooks.slack.com", "hooks.slack-gov.com"})

_ENDPOINT_ERRORS: Final = """
    action_prohibited channel_is_archived channel_not_found invalid_token no_active_hooks no_service
    no_service_id no_team posting_to_general_channel_denied team_disabled
"""
_PAYLOAD_ERRORS: Final = """
    invalid_attachments invalid_blocks invalid_blocks_format invalid_payload
    missing_text_or_fallback_or_attachments msg_blocks_too_long no_text too_many_attachments
    user_not_found
"""
_ERRORS: Final = {
    **dict.fromkeys(_ENDPOINT_ERRORS.split(), Outcome.ENDPOINT),
    **dict.fromkeys(_PAYLOAD_ERRORS.split(), Outcome.PAYLOAD),
}
"""Outcome by the error in a response, whatever its status. Only these names are logged."""

_ACCEPTED: Final = frozenset({"ok", "accepted", "success", "true"})


def slack_attempt(response: Response, now: float) -> Attempt:
    """Return the outcome of an answer at ``now`` (Unix seconds)."""
    by_status, is_slack = answered(response, now), response.host in SLACK_HOSTS
    if by_status.outcome is Outcome.THROTTLED:
        return by_status
    if by_status.outcome is Outcome.DELIVERED and response.error is not None and is_slack:
        return unanswered(response.error)
    text = response.body.strip().decode("utf-8", "replace")
    found = _json_object(text)
    name = str(found.get("error", "")) if found is not None else text
    if name in _ERRORS:
        return replace(by_status, outcome=_ERRORS[name], reason=f"{by_status.reason} {name}")
    if by_status.outcome is Outcome.DELIVERED and not _is_accepted(text, found, is_slack=is_slack):
        reason = f"{by_status.reason}, but not as Slack does; an intermediary may have answered"
        return Attempt(Outcome.TRANSIENT, reason, ambiguous=True)
    if response.status == HTTPStatus.BAD_REQUEST and is_page(response):
        # Slack and the others answer in text or JSON: it is not the message that was refused.
        reason = f"{by_status.reason} with a page of HTML, as an intermediary does"
        return Attempt(Outcome.TRANSIENT, reason)
    return by_status


def _is_accepted(text: str, found: dict[str, Any] | None, *, is_slack: bool) -> bool:
    if found is None:
        return text == "ok" if is_slack else text.casefold() in _ACCEPTED | {""}
    if is_slack:
        return found.get("ok") is True
    says_no = False in (found.get("ok"), found.get("success")) or bool(found.get("error"))
    return not says_no and found.get("result") != "error"


def _json_object(text: str) -> dict[str, Any] | None:
    try:
        found = json.loads(text) if text.startswith("{") else None
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
