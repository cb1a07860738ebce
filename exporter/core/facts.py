"""Facts of the events about an account's list, in JSON's types."""

import json
from collections import Counter
from collections.abc import Mapping
from typing import Final

from exporter.core.model import (
    FAILED,
    STATUSES,
    UNKNOWN,
    FineTune,
    Outage,
    Snapshot,
    status_label,
)
from exporter.core.status import Canonical, canonical_status
from exporter.core.text import cut, listed, one_line, rounded_duration, timestamp

_NAMED_AT_BASELINE: Final = 20
"""Failed fine-tunes that the summary of a baseline names."""

_SUMMARY_FIELDS: Final = {"id": 90, "name": 80, "model_id": 50, "status": 24}
"""Fields of a fine-tune in the summary of a baseline, and their longest texts in characters.

The whole summary fits into a text of a template, also when its characters are escaped in JSON.
"""

_LONGEST_STATUS: Final = 200

_CHANGES: Final = (
    ("failed", "failed", "failed"),
    ("completed", "completed", "completed"),
    ("created", "was created", "were created"),
    ("removed", "is no longer listed", "are no longer listed"),
)
"""Keys of the changes during an outage, and their predicates for one fine-tune and for several."""


def baseline_facts(
    snapshot: Snapshot, account: str, canonical: Canonical = canonical_status
) -> dict[str, object]:
    """Return the facts of a baseline's summary, in JSON's types."""
    fine_tunes = snapshot.fine_tunes.values()
    labels = [status_label(canonical(fine_tune.status)) for fine_tune in fine_tunes]
    counts = Counter(labels)
    failed = [each for each, label in zip(fine_tunes, labels, strict=True) if label == FAILED]
    return {
        "total": len(fine_tunes),
        **{status: counts[status] for status in STATUSES},
        "failed_ones": [
            {"account": account, **_summary(each)} for each in failed[:_NAMED_AT_BASELINE]
        ],
        "failed_unnamed": max(len(failed) - _NAMED_AT_BASELINE, 0),
    }


def _summary(fine_tune: FineTune) -> dict[str, str]:
    return {name: cut(getattr(fine_tune, name), most) for name, most in _SUMMARY_FIELDS.items()}


def retired_facts(number: int) -> dict[str, object]:
    """Return the further facts of the baseline of another organisation.

    ``number`` is the number of fine-tunes of the organisation before.
    """
    text = (
        f"The API key changed, and its list has none of the {number} fine-tunes watched so far. "
        "They belong to another organisation or are all deleted: they are not watched any more, "
        "and no removal is reported."
    )
    if not number:
        text = (
            "The API key changed. No fine-tune was watched so far: the watch begins with this list."
        )
    return {"retired": number, "text": text}


def recovery_facts(
    outage: Outage, seconds: float, changes: Mapping[str, int] | None
) -> dict[str, object]:
    """Return the facts of an outage of ``seconds`` that ends.

    ``changes`` are numbers of fine-tunes: ``failed``, ``completed``, ``created`` and ``removed``,
    which the list does not have any more; None if the list was not compared.
    """
    text = f"It could not be read for {rounded_duration(seconds)}."
    if not outage.has_baseline:
        text += " Its watch begins now."
    elif changes is not None:
        text += f" {_changes_text(changes)}"
    since = timestamp(outage.since)
    return {"since": since, "seconds": round(seconds), **(changes or {}), "text": text}


def _changes_text(changes: Mapping[str, int]) -> str:
    words: list[str] = []
    for name, one, more in _CHANGES:
        if number := changes[name]:
            noun = "" if words else " fine-tune" if number == 1 else " fine-tunes"
            words.append(f"{number}{noun} {one if number == 1 else more}")
    return f"Meanwhile {listed(words)}." if words else "Nothing changed meanwhile."


def unknown_status_facts(status: str, number: int, *, last: bool) -> dict[str, object]:
    """Return what is unknown, and what to do; ``last``: no other unknown status is reported.

    ``status`` is canonical, ``number`` is the number of fine-tunes that have it.
    """
    text = (
        "They are counted as unknown, and no alert is sent when a fine-tune enters this status. If "
        f"it means a failure, add it to alerts.failed_statuses: [failed, {_yaml_text(status)}]"
    )
    if status == UNKNOWN:
        text = "The API sends no status for them: they are counted as unknown."
    if last:
        text += " More unknown statuses of this account are not reported."
    return {"status": one_line(status, _LONGEST_STATUS), "total": number, "text": text}


def _yaml_text(text: str) -> str:
    # A text in JSON is one in YAML, too.
    return json.dumps(one_line(text, _LONGEST_STATUS), ensure_ascii=False)
