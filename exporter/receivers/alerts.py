"""What an event is as an alert, for Alertmanager and for whatever takes the webhooks it sends."""

from collections.abc import Mapping
from hashlib import sha256
from typing import Final, Literal

from exporter.core.message import Pages, links, message
from exporter.core.model import Event, EventType
from exporter.core.text import LONGEST, one_line

Status = Literal["firing", "resolved"]

LONGEST_LABEL: Final = 256
"""How many characters of a value a label carries."""

_ALERTNAMES: Final[dict[EventType, str]] = {
    "fine_tune.failed": "CartesiaFineTuneFailed",
    "fine_tune.completed": "CartesiaFineTuneCompleted",
    "fine_tune.created": "CartesiaFineTuneCreated",
    "fine_tune.removed": "CartesiaFineTuneRemoved",
    "fine_tune.stuck": "CartesiaFineTuneStuck",
    "fine_tune.changed": "CartesiaFineTuneChanged",
    "agent.baseline": "CartesiaBaseline",
    "agent.poll_failing": "CartesiaPollFailing",
    "agent.poll_recovered": "CartesiaPollFailing",
    "agent.receiver_unhealthy": "CartesiaReceiverUnhealthy",
    "agent.receiver_recovered": "CartesiaReceiverUnhealthy",
    "agent.test": "CartesiaExporterTest",
}

_SEVERITIES: Final = {
    "CartesiaFineTuneFailed": "critical",
    "CartesiaFineTuneStuck": "warning",
    "CartesiaPollFailing": "warning",
    "CartesiaReceiverUnhealthy": "warning",
}
"""The rest is ``info``. By name and not by type: trouble and its end must have the same labels."""

_RESOLVED: Final = frozenset({"agent.poll_recovered", "agent.receiver_recovered"})

_HASHED: Final = 9  # "~" and eight hexadecimal digits


def status(event: Event) -> Status:
    """Return whether the alert begins with this event or ends with it."""
    return "resolved" if event.type in _RESOLVED else "firing"


def labels(event: Event) -> dict[str, str]:
    """Return the identity of the alert: the same for each failure of the same fine-tune.

    No value is empty or longer than LONGEST_LABEL characters, and each is valid UTF-8.
    """
    alertname = _ALERTNAMES[event.type]
    fine_tune = event.fine_tune
    found = {
        "alertname": alertname,
        "severity": _SEVERITIES.get(alertname, "info"),
        "account": event.account,
        "receiver": "" if fine_tune else _identity(event.subject),
    }
    if fine_tune is not None:
        found |= {
            "fine_tune_id": _identity(fine_tune.id),
            "model_id": fine_tune.model_id,
            "language": fine_tune.language,
            "dataset": fine_tune.dataset,
        }
    return _cleaned(found, LONGEST_LABEL)


def _identity(text: str) -> str:
    """Return an id that fits a label; one that loses anything by it still differs from others."""
    shown = one_line(text, LONGEST_LABEL)
    if shown == text:
        return shown
    digest = sha256(text.encode("utf-8", "backslashreplace")).hexdigest()
    return f"{one_line(text, LONGEST_LABEL - _HASHED)}~{digest[: _HASHED - 1]}"


def annotations(event: Event, pages: Pages, *, minimal: bool = False) -> dict[str, str]:
    """Return what is to be read about the alert; the minimal ones leave out what people wrote.

    No value is empty or longer than 1,000 characters, and each is valid UTF-8.
    """
    told = message([event], pages)
    facts = dict(told.facts)
    found = {link.name: link.url for link in links(event, pages) if len(link.url) <= LONGEST}
    found |= {"status": facts.get("Status", ""), "observed_at": facts["Observed"]}
    if minimal:
        found["summary"] = f"{event.type}: {event.subject or event.account}"
    elif event.fine_tune is not None:
        found |= {"summary": told.title, "description": told.text, "name": event.fine_tune.name}
    else:
        said = (f"{name}: {value}" for name, value in told.facts if name != "Observed")
        found |= {"summary": told.title, "description": told.text or "; ".join(said)}
    return _cleaned(found, LONGEST)


def generator_url(event: Event | None, pages: Pages) -> str:
    """Return where an alert leads: our status page, or the Playground when there is none."""
    return pages.status_page or links(event, pages)[0].url


def fingerprint(alert: Mapping[str, str]) -> str:
    """Return the fingerprint that Alertmanager gives an alert with these labels.

    It is 64-bit FNV-1a over names and values, each ended by 0xff (prometheus/common,
    model/signature.go).
    """
    text = b"".join(b"%s\xff%s\xff" % (n.encode(), v.encode()) for n, v in sorted(alert.items()))
    found = 0xCBF29CE484222325
    for byte in text:
        found = (found ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return f"{found:016x}"


def _cleaned(texts: Mapping[str, str], most: int) -> dict[str, str]:
    cleaned = {name: one_line(text, most) for name, text in texts.items()}
    return {name: text for name, text in cleaned.items() if text}
