"""Warnings about mentions that Slack shows as plain text, so that nobody is notified."""

import re
from collections.abc import Iterator
from typing import Final
from urllib.parse import urlsplit

from exporter.config.receivers import CommonReceiver, SlackReceiver
from exporter.core.secret import SecretError
from exporter.receivers.slack_answer import SLACK_HOSTS

_ID: Final = r"[A-Z0-9]{2,}(?:\|[^<>]*)?"
_MENTION: Final = re.compile(
    rf"<!(?:here|channel|everyone)(?:\|[^<>]*)?> | <!subteam\^S{_ID}> | <@[UW]{_ID}>", re.VERBOSE
)
_MARKUP: Final = re.compile(r"<[!@][^<>]*>")
_WORD: Final = re.compile(r"(?<![\w.<|])@\w[\w.-]*")
_EVERYBODY: Final = re.compile(r"\b(?:here|channel|everyone)\b", re.IGNORECASE)


def mention_warnings(receiver: CommonReceiver) -> Iterator[str]:
    """Yield the warnings about the mentions of a receiver."""
    if not isinstance(receiver, SlackReceiver):
        return
    mentions = {"mention": receiver.mention} if receiver.mention else {}
    for number, rule in enumerate(receiver.mentions):
        mentions[f"mentions[{number}].mention"] = rule.mention
    for key, mention in mentions.items():
        remedy = _remedy(mention)
        # Mattermost and Rocket.Chat understand @here and @team.
        if remedy and not (_WORD.search(mention) and not _is_slack(receiver)):
            yield f"receivers[{receiver.name}].{key} mentions nobody in Slack; {remedy}"


def _remedy(mention: str) -> str:
    """Return what to write in place of a text that Slack does not understand; else empty."""
    rest = _MENTION.sub(" ", mention)
    refused = _MARKUP.search(rest) or _WORD.search(rest)
    if rest != mention and refused is None:
        return ""
    everybody = _EVERYBODY.search(refused[0] if refused else rest)
    if everybody is not None:
        return f"write <!{everybody[0].lower()}>"
    return "write <!here>, <!subteam^S…> with the id of a user group or <@U…> with that of a user"


def _is_slack(receiver: SlackReceiver) -> bool:
    try:
        return urlsplit(receiver.secrets["url"]()).hostname in SLACK_HOSTS
    except SecretError:  # its file was there a moment ago
        return True
