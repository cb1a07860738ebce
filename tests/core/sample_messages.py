"""Events and settings for the tests of messages."""

from typing import cast

from exporter.core.events import Event, EventType, stable_id
from exporter.core.links import LinkTemplates
from exporter.core.message import MessageSettings
from exporter.core.model import FineTune

AT = 1_795_460_580.9
PAGES = MessageSettings(
    LinkTemplates("https://play.example/tunes/{id}", "https://watch.example/"),
    subscriptions=("failed", "agent"),
)
VOICE = FineTune("ft_1", "My voice", "For the\nhotline", "en", "sonic-2", "ds_1", "failed")


def of(fine_tune: FineTune, kind: str = "failed", previous: str | None = "training") -> Event:
    number = stable_id("evt", fine_tune.id, kind)
    kind_of_event = cast("EventType", f"fine_tune.{kind}")
    return Event(number, kind_of_event, "default", AT, fine_tune, previous)


def many(
    number: int, kind: str = "failed", model: str = "sonic-2", dataset: str = ""
) -> list[Event]:
    return [
        of(
            FineTune(f"{kind}_{n}", f"Voice {n}", model_id=model, dataset=dataset, status=kind),
            kind,
        )
        for n in range(number)
    ]
