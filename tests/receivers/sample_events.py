"""Sample events: one failure, many failures, and strategies for events with hostile texts."""

from hypothesis import strategies as st

from exporter.core.events import EVENT_TYPES, Event, EventType
from exporter.core.facts import baseline_facts, unknown_status_facts
from exporter.core.links import LinkTemplates
from exporter.core.mentions import Mentions
from exporter.core.message import MessageSettings
from exporter.core.model import FineTune, OutboxMessage, Snapshot
from exporter.core.status import canonical_status

AT = 1_795_460_580.25
SINCE = "2026-11-23T18:00:00Z"
SETTINGS = MessageSettings(
    LinkTemplates("https://play.example/tunes/{id}", "https://watch.example/")
)

VOICE = FineTune("ft_1", "My voice", "For the <hotline>", "en", "sonic-2", "ds_1", "failed")
FAILED = Event("evt_1", "fine_tune.failed", "default", AT, VOICE, "training")
TEST = Event("evt_test", "agent.test", "default", AT, facts={"text": "If you can read this."})


def delivery(body: bytes) -> OutboxMessage:
    return OutboxMessage("evt_1", "ops", body, events=1, created_at=AT)


def always(mention: str) -> Mentions:
    """Return what adds the mention to every message."""
    return Mentions(frozenset(EVENT_TYPES), mention)


def failures(number: int) -> list[Event]:
    return [
        Event(
            f"evt_{n}",
            "fine_tune.failed",
            "default",
            AT + n,
            FineTune(f"ft_{n}", f"Voice {n}", "", "en", "sonic-2", "ds_1", "failed"),
            "training",
        )
        for n in range(number)
    ]


def baseline(found: list[FineTune]) -> Event:
    facts = baseline_facts(Snapshot({str(n): each for n, each in enumerate(found)}, AT), "default")
    return Event("evt_baseline", "agent.baseline", "default", AT, facts=facts)


def unknown_status(status: str) -> Event:
    facts = unknown_status_facts(canonical_status(status), 3, last=False)
    return Event("evt_status", "agent.unknown_status", "default", AT, facts=facts)


_NASTY = (
    "<!channel>",
    "<!here|x>",
    "<@U123>",
    "<https://evil.example|good>",
    "&amp;",
    "&",
    "`code` *bold* ```",
    "\x00\x1b[2J\x7f",
    "\u202egpj.exe",
    "\u200b",
    "a\nb\r\n",
    "\U0001f469\u200d\U0001f680",
    "{id}",
    "|",
    "&<>" * 2000,
    "\U0001f600" * 3000,
    "x" * 100_000,
    "",
)

hostile = st.one_of(
    st.sampled_from(_NASTY),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
    st.lists(st.sampled_from(_NASTY), max_size=4).map("".join),
)

_fine_tune_types = st.sampled_from(
    ["fine_tune.failed", "fine_tune.completed", "fine_tune.removed", "fine_tune.created"]
)
_agent_types = st.sampled_from(
    [
        "agent.poll_failing",
        "agent.poll_recovered",
        "agent.receiver_unhealthy",
        "agent.receiver_recovered",
    ]
)
fine_tunes = st.builds(
    FineTune, hostile.filter(bool), hostile, hostile, hostile, hostile, hostile, hostile
)


def _of_fine_tune(event_type: EventType, fine_tune: FineTune, previous: str | None) -> Event:
    return Event("evt", event_type, "default", AT, fine_tune, previous)


def stuck(fine_tune: FineTune, previous: str | None = None) -> Event:
    facts = {"since": SINCE}
    return Event("evt", "fine_tune.stuck", "default", AT, fine_tune, previous, facts)


def trouble(
    event_type: EventType, reason: str = "the API answered 401", name: str = "chat"
) -> Event:
    """Return the event of an account or a receiver that fails or recovers."""
    facts = {"reason": reason, "since": SINCE}
    if event_type.startswith("agent.receiver"):
        return Event("evt", event_type, "", AT, facts={"receiver": name, **facts})
    return Event("evt", event_type, "default", AT, facts=facts)


events = st.one_of(
    st.builds(_of_fine_tune, _fine_tune_types, fine_tunes, st.none() | hostile),
    st.builds(stuck, fine_tunes, st.none() | hostile),
    st.builds(
        trouble, _agent_types, hostile, st.from_regex(r"[a-zA-Z0-9_.-]{1,64}", fullmatch=True)
    ),
    st.builds(baseline, st.lists(fine_tunes, max_size=30)),
    st.builds(unknown_status, hostile),
    st.just(TEST),
)
