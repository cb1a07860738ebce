"""The story of one fine-tune: its statuses, trainings, notifications and siblings."""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final
from urllib.parse import quote

from markupsafe import Markup

from exporter.core.records import (
    AttemptRecord,
    DeliveryRecord,
    EventRecord,
    FineTuneRecord,
    FineTuneStory,
    StatusLabel,
    StatusSpan,
    TrainingRecord,
    at,
)
from exporter.core.text import cut
from exporter.store.fine_tunes import FineTuneFilter
from exporter.store.overview import dataset_failures
from exporter.store.pages import PageRequest
from exporter.web.charts import timeline
from exporter.web.deliveries import most_urgent_first, shown_state
from exporter.web.mutes import UNTIL_RECOVERED
from exporter.web.times import age, duration, time_element
from exporter.web.view import View, label

_MOST_EVENTS: Final = 200
_MOST_SIBLINGS: Final = 20
_MOST_ATTEMPTS: Final = 20
_MOST_TROUBLES: Final = 3
_WEEK: Final = timedelta(days=7)
_NO_CHANGE: Final = frozenset({"fine_tune.stuck", "fine_tune.removed", "fine_tune.recovered"})


def story(view: View, account: str, fine_tune_id: str) -> FineTuneStory | None:
    """Return the story of a fine-tune; None if it is not known."""
    fine_tune = view.fine_tunes.find(account, fine_tune_id)
    if fine_tune is None:
        return None
    events = view.events.of_fine_tune(account, fine_tune_id, _MOST_EVENTS)
    of_dataset = FineTuneFilter(account=account, dataset=fine_tune.dataset)
    siblings: list[FineTuneRecord] = []
    dataset_counts: dict[str, int] = {}
    if fine_tune.dataset:
        siblings = view.fine_tunes.page(of_dataset, PageRequest(_MOST_SIBLINGS)).elements
        dataset_counts = view.fine_tunes.counts(of_dataset)
    model_counts = view.fine_tunes.counts(FineTuneFilter(model_id=fine_tune.model_id))
    week = (view.now - _WEEK).timestamp()
    return FineTuneStory(
        fine_tune=fine_tune,
        statuses=_spans(view, fine_tune, events),
        trainings=view.fine_tunes.trainings(account, fine_tune_id),
        events=events,
        same_dataset=siblings,
        same_dataset_total=_listed(dataset_counts),
        same_dataset_failed=dataset_counts.get("failed", 0),
        same_model_total=_listed(model_counts),
        same_model_failed=model_counts.get("failed", 0),
        dataset_failures_7d=dataset_failures(view.connection, account, fine_tune.dataset, week),
        mutes=view.mutes_of(fine_tune),
    )


def _listed(counts: dict[str, int]) -> int:
    return sum(number for name, number in counts.items() if name not in {"stuck", "removed"})


def _spans(
    view: View, fine_tune: FineTuneRecord, events: Sequence[EventRecord]
) -> list[StatusSpan]:
    """Return the times in each status: from the events, and the last one from the fine-tune."""
    entered = [e for e in events if e.type not in _NO_CHANGE and e.status is not None]
    begins = [(each.status or "", each.observed_at, True) for each in entered]
    # A status that is configured as a failure has another label than its text has.
    labels: dict[str | None, StatusLabel] = {
        each.status: "failed" for each in entered if each.type == "fine_tune.failed"
    }
    labels[fine_tune.status] = fine_tune.status_label
    stored = view.stored.get(fine_tune.account)
    if entered and entered[0].previous_status is not None and stored is not None:
        begins.insert(0, (entered[0].previous_status, at(stored.baseline_at), False))
    if not begins or begins[-1][0] != fine_tune.status:
        begins.append((fine_tune.status, fine_tune.since, fine_tune.since_seen))
    ends = [*(since for _, since, _ in begins[1:]), None]
    return [
        StatusSpan(
            status=status,
            status_label=labels.get(status) or label(status),
            since=since,
            since_seen=seen,
            until=None if until is None else max(until, since),
        )
        for (status, since, seen), until in zip(begins, ends, strict=True)
    ]


def story_page(view: View, found: FineTuneStory) -> dict[str, Any]:
    """Return the variables of the template of a story."""
    each = found.fine_tune
    deliveries = [
        row for event in reversed(found.events) for row in most_urgent_first(event.deliveries)
    ]
    chart = timeline(found.statuses, deliveries[::-1], view.now)
    trainings: list[Any] = [*reversed(found.trainings)]
    if each.status_label == "training" and not each.removed:
        trainings.insert(0, _under_way(each, len(found.trainings) + 1))
    seconds = [each.trained_seconds or 0.0, *(row.seconds or 0.0 for row in found.trainings)]
    longest = max([*seconds, 1.2 * (each.usual_seconds or 0.0), 1.0])
    account = next((a for a in view.settings.accounts if a.name == each.account), None)
    links = []
    if view.settings.playground:
        url = view.settings.playground.replace("{id}", quote(each.id, safe=""))
        links.append(("Playground", url))
    return {
        "story": found,
        "first_seen": found.statuses[0],
        "labels": () if account is None else account.labels,
        "links": links,
        "verdict": _verdict(view, found),
        "chart": chart,
        "ticks": chart.shown.ticks(),
        "deliveries": [(row, _attempts(view, row)) for row in deliveries],
        "notified_note": _notified(deliveries),
        "nothing_notified": _nothing_notified(found),
        "trainings": trainings,
        "longest": longest,
        "until_recovered": UNTIL_RECOVERED,
    }


def _under_way(each: FineTuneRecord, attempt: int) -> Any:
    return {
        "attempt": attempt,
        "began_at": each.since,
        "ended_at": None,
        "seconds": each.trained_seconds,
        "ended_as": None,
    }


def _attempts(view: View, row: DeliveryRecord) -> list[AttemptRecord]:
    if row.message is None:
        return []
    return view.events.attempts(row.receiver, row.message, _MOST_ATTEMPTS)


def _notified(deliveries: Sequence[DeliveryRecord]) -> str:
    states = Counter(map(shown_state, deliveries))
    order = ("delivered", "pending", "held", "muted", "dead", "orphaned", "discarded")
    return ", ".join(f"{states[state]} {state}" for state in order if states[state]) or "none"


def _nothing_notified(found: FineTuneStory) -> str:
    if not found.events:
        return "Nothing happened since the baseline: nobody was notified."
    return "No receiver subscribes to what happened to it."


def _verdict(view: View, found: FineTuneStory) -> dict[str, Any]:
    """Return the story in sentences: how it stands, what was before, and who was notified."""
    each = found.fine_tune
    others = [
        *_earlier(view, found.trainings, each),
        *_dataset_words(found),
        *_notified_words(found.events),
        *_held_words(found.events),
    ]
    return {"first": _standing(view, found), "others": others, "troubles": _troubles(view, found)}


def _standing(view: View, found: FineTuneStory) -> str:
    each = found.fine_tune
    usual = each.usual_seconds
    against = f"; the usual is {duration(usual)}" if usual is not None else ""
    if each.removed:
        return f"Removed from the list; it was {each.status_label}."
    if each.status_label == "training":
        so_far = each.trained_seconds
        if so_far is None:
            return f"In training, for at least {duration((view.now - each.since).total_seconds())}."
        stuck = ", longer than expected" if each.stuck else ""
        return f"In training for {duration(so_far)}{stuck}{against}."
    word = cut(each.status, 40) if each.status_label == "unknown" else each.status_label
    if each.trained_seconds is not None and each.status_label in {"failed", "completed"}:
        return f"{word.capitalize()} after {duration(each.trained_seconds)} in training{against}."
    if each.status_label in {"failed", "completed"}:
        seen = "before it was watched" if not each.since_seen else "no training was observed"
        return f"{word.capitalize()}; {seen}."
    lasted = duration((view.now - each.since).total_seconds())
    stuck = ", longer than expected" if each.stuck else ""
    return f"{word.capitalize()} for {'' if each.since_seen else 'at least '}{lasted}{stuck}."


def _earlier(view: View, trainings: Sequence[TrainingRecord], each: FineTuneRecord) -> list[str]:
    current = each.status_label in {"failed", "completed"}
    earlier = trainings[:-1] if current else trainings
    if not earlier:
        return []
    last = earlier[-1]
    after = f" after {duration(last.seconds)}" if last.seconds is not None else ""
    when = time_element(last.ended_at, view.now)
    number = "one attempt" if len(earlier) == 1 else f"{len(earlier)} attempts"
    sentence = Markup("Before it, {}: the last {} {}{}.")
    return [sentence.format(number, last.ended_as, when, after)]


def _dataset_words(found: FineTuneStory) -> list[str]:
    number = found.dataset_failures_7d
    if number < 2:  # noqa: PLR2004 - one failure is this one
        return []
    return [f"Its dataset failed {number} times in 7 days."]


def _notified_words(events: Sequence[EventRecord]) -> list[str]:
    """Return who was notified of the last failure, and how soon."""
    failures = [each for each in events if each.type == "fine_tune.failed"]
    if not failures:
        return []
    delivered = [d for d in failures[-1].deliveries if d.state == "delivered"]
    if not delivered:
        return [] if failures[-1].deliveries else ["No receiver subscribes to failures."]
    names = [each.receiver for each in delivered]
    listed = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
    delay = max((d.settled_at or d.queued_at) - failures[-1].observed_at for d in delivered)
    was = "was" if len(names) == 1 else "were"
    return [f"{listed} {was} notified within {age(max(delay.total_seconds(), 1.0))}."]


def _held_words(events: Sequence[EventRecord]) -> list[str]:
    """Return for whom notifications are held back or muted."""
    words = []
    for state, text in (("held", "Held back for"), ("muted", "Muted for")):
        names = {d.receiver for e in events for d in e.deliveries if shown_state(d) == state}
        if names:
            words.append(f"{text} {', '.join(sorted(names))}.")
    return words


def _troubles(view: View, found: FineTuneStory) -> list[str]:
    sentences: list[str] = []
    for event in found.events:
        for each in event.deliveries:
            answer = f": {each.answer.removeprefix('answered ')}" if each.answer else ""
            if shown_state(each) == "pending":
                when = _next_attempt(each, view.now)
                sentences.append(Markup("{} is pending{}{}.").format(each.receiver, answer, when))
            elif each.state in {"dead", "orphaned"}:
                sentences.append(f"{each.receiver} was not notified{answer}.")
    sentences = list(dict.fromkeys(sentences))
    if len(sentences) <= _MOST_TROUBLES:
        return sentences
    more = len(sentences) - _MOST_TROUBLES + 1
    return [*sentences[: _MOST_TROUBLES - 1], f"{more} more are not delivered."]


def _next_attempt(delivery: DeliveryRecord, now: datetime) -> str:
    then = delivery.next_attempt_at
    if then is None:
        return ""
    when = time_element(then, now) if then > now else "now"
    return Markup(", next attempt {}").format(when)
