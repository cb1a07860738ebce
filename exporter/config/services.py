"""Hints for receiver types that do not exist: the service is reached by another type."""

from typing import Final

_APPRISE: Final = {
    "Discord": ("discord://WEBHOOK_ID/WEBHOOK_TOKEN", "discord"),
    "e-mail": ("mailtos://USER:PASSWORD@HOST/?to=ADDRESS", "email", "mail", "mailto", "smtp"),
    "Google Chat": ("gchat://WORKSPACE/KEY/TOKEN", "googlechat", "gchat"),
    "Gotify": ("gotifys://HOST/TOKEN", "gotify"),
    "Matrix": ("matrixs://USER:PASSWORD@HOST/#ROOM", "matrix"),
    "Microsoft Teams": (
        "workflows://HOST/WORKFLOW/SIGNATURE",
        *("teams", "msteams", "microsoftteams", "workflows"),
    ),
    "ntfy": ("ntfys://HOST/TOPIC", "ntfy"),
    "Opsgenie": ("opsgenie://API_KEY", "opsgenie"),
    "PagerDuty": ("pagerduty://INTEGRATION_KEY@API_KEY", "pagerduty", "pager"),
    "Pushover": ("pover://USER_KEY@TOKEN", "pushover", "pover"),
    "Signal": ("signals://HOST/FROM_PHONE/TO_PHONE", "signal"),
    "SNS": ("sns://ACCESS_KEY_ID/SECRET_ACCESS_KEY/REGION/TOPIC", "sns", "awssns"),
    "Splunk On-Call": ("splunk://ROUTING_KEY@API_KEY", "victorops", "splunkoncall", "splunk"),
    "Telegram": ("tgram://BOT_TOKEN/CHAT_ID", "telegram", "tgram"),
    "Twilio": ("twilio://ACCOUNT_SID:AUTH_TOKEN@FROM_PHONE/TO_PHONE", "twilio", "sms"),
    "Webex": ("webex://TOKEN", "webex", "wxteams"),
    "Zulip": ("zulip://BOT@ORGANIZATION/TOKEN/CHANNEL", "zulip"),
}
"""By the name of a service: the form of its Apprise URL, and the words that are taken for it."""

_LIKE_SLACK: Final = {
    "mattermost": "Mattermost",
    "mmost": "Mattermost",
    "rocketchat": "Rocket.Chat",
}
_OF_WORD: Final = {
    **{
        word: f"; for {service} use type: apprise with a url like {url}"
        for service, (url, *words) in _APPRISE.items()
        for word in words
    },
    **{
        word: f"; {service} takes Slack's format: use type: slack with its webhook URL"
        for word, service in _LIKE_SLACK.items()
    },
}


def service_hint(receiver_type: object) -> str:
    """Return `; for Discord use …` for the name of a service, an empty text for another value."""
    word = receiver_type.lower() if isinstance(receiver_type, str) else ""
    return _OF_WORD.get("".join(filter(str.isalnum, word)), "")
