"""A sample account with all options and hostile API texts."""

from typing import Any

from exporter.core.counters import Counters, examples
from exporter.core.labels import Labels
from exporter.core.model import FineTune, Snapshot, TrackedFineTune
from exporter.core.view import AccountStatus, SeriesOptions, count, oldest, series
from tests.core.histories import transition_of

NOW = 1_780_000_000.5
ODD = 'a"b\\c\nd\\ne\x00f\r\x1b\x85\u2028\U0001f600{}=,# EOF'
OPTIONS = SeriesOptions(("dataset", "language", "model_id"), (("team", "voices"), ("odd", ODD)), 3)

FINE_TUNES = [
    FineTune("old", language="en", model_id="sonic-2", dataset="d1", status="failed"),
    FineTune("new", language="de", model_id="sonic-2", status="training"),
    FineTune(ODD, language=ODD, model_id=ODD, dataset=ODD, status=ODD),
    FineTune("last", language="en", model_id="folded", status="completed"),
]


def seen(
    fine_tunes: list[FineTune], options: SeriesOptions = OPTIONS, most: int = 2, **fields: object
) -> AccountStatus:
    """What a poll shows that took all of this for a change, a minute apart."""
    labels = Labels().extended(fine_tunes, most, options.names)
    snapshot = Snapshot({each.id: each for each in fine_tunes}, NOW, 0.25, 1)
    tracked = {
        each.id: TrackedFineTune(each, 1, NOW - 60 * (len(fine_tunes) - place), since_seen=True)
        for place, each in enumerate(fine_tunes)
    }
    moved = [
        transition_of(each, 2, "created", time_in_status=60.0 * n)
        for n, each in enumerate(fine_tunes)
    ]
    whole: dict[str, Any] = {
        "up": True,
        "polled_at": NOW,
        "succeeded_at": NOW,
        "duration": 0.25,
        "pages": 1,
        "labels": labels,
        "counts": count(fine_tunes, labels, options.names),
        "counters": Counters().after(moved, labels),
        "options": options,
        "oldest": oldest(snapshot, tracked),
        "series": series(snapshot, tracked, labels, options.most_fine_tunes),
        "examples": examples(moved, labels, NOW),
    }
    return AccountStatus("default", **{**whole, **fields})


EVERYTHING = seen(FINE_TUNES)
