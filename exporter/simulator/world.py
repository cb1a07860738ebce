"""The fine-tunes of the simulated API, which are created, train, end and are deleted.

No I/O and no clock: `World.tick` advances time. All random choices come from one seeded source, so
that the same population and the same calls give the same world.
"""

import string
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from math import isqrt
from random import Random  # noqa: TID251 - seeded: it makes data, not jitter

import msgspec

MODEL_IDS = ("sonic-2", "sonic-3-2025-10-27", "sonic-3-2026-01-12", "sonic-3.5-2026-05-04")
LANGUAGES = ("en", "en", "en", "de", "fr", "es", "ja", "hi", "pt", "ar")
DATASETS = tuple(f"dataset_{number:04d}" for number in range(12))
VOICES = ("Ada", "Bram", "Chidi", "Dalia", "Emre", "Freja", "Giulia", "Haruki", "Ines", "Jonas")
USES = ("audiobook", "support line", "podcast", "game character", "news desk", "navigation")

# Names that users may type or paste: mark-up of chat services and web pages, quotes, line breaks,
# control characters, right-to-left text, emoji of several code points, and an empty name.
HOSTILE_TEXTS = (
    "<!channel> read this & <https://evil.example|click here>",
    "<script>alert('fine-tune')</script>",
    'the "best" voice, it\'s {{ fine }} ${HOME} %s \\n',
    "line one\nline two\ttab\r\n# heading *bold* _it_ `code`",
    "\x1b[31mred\x1b[0m \x07 bell \x00 null",
    "\u05e7\u05d5\u05dc \u05e2\u05d1\u05e8\u05d9 \u202ereversed\u202c \u0635\u0648\u062a",
    "\U0001f469\u200d\U0001f469\u200d\U0001f467 family voice \U0001f3a4",
    "\u58f0\u306e\u30c6\u30b9\u30c8 e\u0301\u0323 \ufeffzero\u200bwidth",
    "long " + "and longer " * 150,
    "",
)
HOSTILE_SHARE = 0.1

ID_LETTERS = string.ascii_letters + string.digits
ID_LENGTH = 22

ACTIVE_STATUSES = ("created", "training")
CHANGING_STATUSES = (*ACTIVE_STATUSES, "failed")

# Probabilities per tick: a fine-tune waits about 2 ticks and trains about 4.
START_CHANCE = 0.5
FINISH_CHANCE = 0.25


class UnknownFineTuneError(LookupError):
    """No fine-tune in the world has this id."""


class FineTune(msgspec.Struct, frozen=True):
    """A fine-tune as the API lists it (docs.cartesia.ai, API reference, fine-tunes, list)."""

    id: str
    name: str
    description: str
    language: str
    model_id: str
    dataset: str
    status: str


class Page(msgspec.Struct, frozen=True):
    """One page of the list, newest first, and whether there are more in the direction asked for."""

    data: list[FineTune]
    has_more: bool


@dataclass(frozen=True, slots=True)
class Population:
    """Parameters of a world.

    `fine_tunes` is their number. `fail_rate` is the share (0 to 1) of trainings that fail. `churn`
    is the average number of fine-tunes that are deleted, and created, per tick. `reattempt_rate` is
    the probability per tick that a failed fine-tune starts again under its id.
    """

    fine_tunes: int = 25
    fail_rate: float = 0.1
    churn: float = 0.0
    reattempt_rate: float = 0.005
    seed: int = 0


class World:
    """The fine-tunes of one simulated account.

    Their number changes only by `add` and `delete`: churn creates as many as it deletes.
    """

    def __init__(self, population: Population) -> None:
        self.population = population
        self._random = Random(population.seed)  # noqa: S311 - simulated data, no secret
        self._fine_tunes: dict[str, FineTune] = {}
        self._numbers: dict[str, int] = {}
        # (number, id), oldest first: sorted, so that bisection finds a cursor, and a new fine-tune
        # is an append.
        self._order: list[tuple[int, str]] = []
        # Ids of those whose status may change, so that a tick does not visit the completed ones.
        self._changing: dict[str, None] = {}
        self._next_number = 0
        self._populate()

    def __len__(self) -> int:
        return len(self._order)

    def __iter__(self) -> Iterator[FineTune]:
        """Iterate over all fine-tunes, newest first."""
        return (self._fine_tunes[fine_tune_id] for _, fine_tune_id in reversed(self._order))

    def get(self, fine_tune_id: str) -> FineTune:
        """Return one fine-tune, or raise UnknownFineTuneError."""
        try:
            return self._fine_tunes[fine_tune_id]
        except KeyError:
            raise UnknownFineTuneError(fine_tune_id) from None

    def add(self, **fields: str) -> FineTune:
        """Add and return a new fine-tune, the newest, with these fields and random other ones.

        Its status is `created` unless given; any text is allowed, as the API may add statuses.
        Raises ValueError for an id that exists.
        """
        new = msgspec.structs.replace(self._random_fine_tune(), **fields)
        if new.id in self._fine_tunes:
            raise ValueError(f"there is a fine-tune {new.id!r} already")
        self._numbers[new.id] = self._next_number
        self._order.append((self._next_number, new.id))
        self._next_number += 1
        self._store(new)
        return new

    def delete(self, fine_tune_id: str) -> None:
        """Remove a fine-tune from the list, or raise UnknownFineTuneError."""
        del self._order[self._position(fine_tune_id)]
        del self._numbers[fine_tune_id]
        del self._fine_tunes[fine_tune_id]
        self._changing.pop(fine_tune_id, None)

    def set_status(self, fine_tune_id: str, status: str) -> None:
        """Set any status of a fine-tune, or raise UnknownFineTuneError."""
        self._store(msgspec.structs.replace(self.get(fine_tune_id), status=status))

    def page(
        self, limit: int, starting_after: str | None = None, ending_before: str | None = None
    ) -> Page:
        """Return up to `limit` fine-tunes next to a cursor, newest first, without the cursor's own.

        `starting_after` selects older ones, `ending_before` newer ones; without a cursor the page
        begins at the newest. Raises UnknownFineTuneError for a cursor that is not in the list, and
        ValueError for two cursors.
        """
        if starting_after is not None and ending_before is not None:
            raise ValueError("starting_after and ending_before exclude each other")
        if ending_before is not None:
            begin = self._position(ending_before) + 1
            end = min(begin + limit, len(self._order))
            has_more = end < len(self._order)
        else:
            end = len(self) if starting_after is None else self._position(starting_after)
            begin = max(end - limit, 0)
            has_more = begin > 0
        ids = (fine_tune_id for _, fine_tune_id in reversed(self._order[begin:end]))
        return Page([self._fine_tunes[fine_tune_id] for fine_tune_id in ids], has_more)

    def tick(self) -> None:
        """Advance time by one unit: statuses change, and churn deletes and creates fine-tunes."""
        for fine_tune_id in list(self._changing):
            before = self._fine_tunes[fine_tune_id].status
            after = self._next_status(before)
            if after != before:
                self.set_status(fine_tune_id, after)
        self._replace_some()

    def _populate(self) -> None:
        """Add the initial fine-tunes: the newest few are active, all others have ended."""
        ended = self.population.fine_tunes - isqrt(self.population.fine_tunes)
        for number in range(self.population.fine_tunes):
            status = (
                self._final_status() if number < ended else self._random.choice(ACTIVE_STATUSES)
            )
            self.add(status=status)

    def _replace_some(self) -> None:
        whole, fraction = divmod(self.population.churn, 1)
        count = min(int(whole) + (self._random.random() < fraction), len(self))
        for _ in range(count):
            self.delete(self._random.choice(self._order)[1])
        for _ in range(count):
            self.add()

    def _next_status(self, status: str) -> str:
        chance = self._random.random()
        if status == "created" and chance < START_CHANCE:
            return "training"
        if status == "training" and chance < FINISH_CHANCE:
            return self._final_status()
        if status == "failed" and chance < self.population.reattempt_rate:
            return "created"
        return status

    def _final_status(self) -> str:
        return "failed" if self._random.random() < self.population.fail_rate else "completed"

    def _store(self, fine_tune: FineTune) -> None:
        self._fine_tunes[fine_tune.id] = fine_tune
        if fine_tune.status in CHANGING_STATUSES:
            self._changing[fine_tune.id] = None
        else:
            self._changing.pop(fine_tune.id, None)

    def _position(self, fine_tune_id: str) -> int:
        """Return the index of a fine-tune in `_order`, or raise UnknownFineTuneError."""
        try:
            return bisect_left(self._order, (self._numbers[fine_tune_id], fine_tune_id))
        except KeyError:
            raise UnknownFineTuneError(fine_tune_id) from None

    def _random_fine_tune(self) -> FineTune:
        pick = self._random.choice
        voice, use = pick(VOICES), pick(USES)
        hostile = self._random.random() < HOSTILE_SHARE
        return FineTune(
            id="fine_tune_" + "".join(self._random.choices(ID_LETTERS, k=ID_LENGTH)),
            name=pick(HOSTILE_TEXTS) if hostile else f"{voice}, {use}",
            description=pick(HOSTILE_TEXTS) if hostile else f"{voice}'s voice for the {use}.",
            language=pick(LANGUAGES),
            model_id=pick(MODEL_IDS),
            dataset=pick(DATASETS),
            status="created",
        )
