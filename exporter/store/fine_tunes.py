"""Lists of fine-tunes, their trainings, and the usual training time of a model."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from math import inf
from statistics import median
from typing import Any, Final, Literal, get_args

from msgspec import Struct
from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    and_,
    bindparam,
    case,
    false,
    func,
    or_,
    select,
)

from exporter.core.match import FINE_TUNE_KEYS, AccountLabels
from exporter.core.model import COMPLETED, FAILED, TRAINING, FineTune
from exporter.core.mutes import FineTuneSelection, selects
from exporter.core.records import FineTuneRecord, StatusLabel, TrainingRecord, at
from exporter.core.text import searchable
from exporter.store.pages import (
    AmbiguousCursorError,
    Page,
    PageRequest,
    UnknownCursorError,
    after,
    page_of,
)
from exporter.store.schema import fine_tunes, label_values, trainings

Label = Callable[[str], StatusLabel]
"""Returns the label of an API status."""

STUCK: Final = "stuck"
REMOVED: Final = "removed"
"""Values of a status filter beside the statuses themselves."""

Sort = Literal[
    "since", "-since", "name", "-name", "status", "-status", "model_id", "-model_id", "dataset",
    "-dataset", "account", "-account",
]  # fmt: skip
SORTS: Final[tuple[Sort, ...]] = get_args(Sort)

USUAL_OF: Final = 50
"""Number of completed trainings of a model whose median is its usual training time."""

_REMOVED_POLLS: Final = 2
_IS_REMOVED: Final = fine_tunes.c.missed_polls >= _REMOVED_POLLS

_Row = Row[Any]
_Key = tuple[int, str]  # the number of an account, and the id of a fine-tune


class FineTuneFilter(Struct, frozen=True):
    """Criteria for fine-tunes; all must match. None and empty match all.

    ``statuses`` are labels, texts of the API, STUCK or REMOVED; without one, removed fine-tunes
    are left out. ``text`` is part of a name or of an id, whatever its case. ``changed_since`` is
    Unix seconds.
    """

    account: str | None = None
    statuses: tuple[str, ...] = ()
    model_id: str | None = None
    dataset: str | None = None
    text: str = ""
    changed_since: float | None = None


class FineTunes:
    """Queries of the fine-tunes of the accounts that are shown.

    ``account_names`` maps the numbers of these accounts to their names; ``are_all`` is whether the
    store has no other accounts. ``label`` returns the label of an API status; ``now`` is Unix
    seconds.
    """

    def __init__(
        self,
        connection: Connection,
        account_names: Mapping[int, str],
        label: Label,
        now: float,
        *,
        are_all: bool = False,
    ) -> None:
        self._connection = connection
        self._names = account_names
        self._are_all = are_all
        self._label = label
        self._now = now
        self._usual: dict[str, float | None] = {}

    def page(
        self, criteria: FineTuneFilter, request: PageRequest, sort: Sort = "-since"
    ) -> Page[FineTuneRecord]:
        """Return one page. Raises UnknownCursorError, AmbiguousCursorError."""
        name, descends = sort.removeprefix("-"), sort.startswith("-")
        column: ColumnElement[Any] = (
            self._account_place if name == "account" else fine_tunes.c[name]
        )
        keys = [(column, descends), (fine_tunes.c.account, descends), (fine_tunes.c.id, descends)]
        query = self._matching(criteria)
        if request.starting_after is not None:
            query = after(query, keys, self._cursor_values(request, column))
        ordered = query.order_by(*(c.desc() if down else c.asc() for c, down in keys))
        rows = self._connection.execute(ordered.limit(request.limit + 1)).all()
        page = page_of(rows, request.limit)
        return Page(self.records(page.elements), page.has_more)

    def find(self, account: str, fine_tune_id: str) -> FineTuneRecord | None:
        """Return the fine-tune with this id, or None."""
        numbers = self._numbers(account)
        query = select(fine_tunes).where(
            fine_tunes.c.account.in_(numbers), fine_tunes.c.id == fine_tune_id
        )
        records = self.records(self._connection.execute(query).all())
        return records[0] if records else None

    def counts(self, criteria: FineTuneFilter) -> dict[str, int]:
        """Return the numbers of matching fine-tunes by label, and those STUCK and REMOVED.

        The statuses of ``criteria`` are ignored.
        """
        query = self._conditions(
            select(
                fine_tunes.c.status,
                fine_tunes.c.configured_failure,
                func.count().filter(~_IS_REMOVED),
                func.count().filter(~_IS_REMOVED, fine_tunes.c.stuck),
                func.count().filter(_IS_REMOVED),
            ).group_by(  # with the account, as the index has them
                fine_tunes.c.account, fine_tunes.c.status, fine_tunes.c.configured_failure
            ),
            criteria,
        )
        totals: dict[str, int] = {}
        for status, is_failure, listed, stuck, removed in self._connection.execute(query):
            label = FAILED if is_failure else self._label(status)
            for name, number in ((label, listed), (STUCK, stuck), (REMOVED, removed)):
                totals[name] = totals.get(name, 0) + number
        return totals

    def count_selected(self, selection: FineTuneSelection, labels: AccountLabels) -> int:
        """Return the number of listed fine-tunes that a selection has.

        ``labels`` are those of each account.
        """
        if selection.fine_tune:
            found = self.find(selection.account or "", selection.fine_tune)
            return int(found is not None and not found.removed)
        # Fine-tunes with equal values are compared once.
        keys = [key for key in FINE_TUNE_KEYS if key in selection.match]
        compared = [fine_tunes.c.account, *(fine_tunes.c[key] for key in keys)]
        query = (
            select(func.count(), *compared)
            .where(~_IS_REMOVED, fine_tunes.c.account.in_(self._names))
            .group_by(*compared)
        )
        total = 0
        for number, account, *values in self._connection.execute(query):
            fine_tune = FineTune(**{"id": "", **dict(zip(keys, values, strict=True))})
            if selects(selection, self._names[account], fine_tune, labels):
                total += number
        return total

    def model_ids(self, most: int) -> list[str]:
        """Return the models of the fine-tunes, at most ``most``, in alphabetical order."""
        # The values that keep their name as labels: reading those of all fine-tunes takes long.
        query = (
            select(label_values.c.value)
            .where(label_values.c.label == "model_id", label_values.c.account.in_(self._names))
            .distinct()
            .order_by(label_values.c.value)
        )
        return list(self._connection.scalars(query.limit(most)))

    def trainings(self, account: str, fine_tune_id: str) -> list[TrainingRecord]:
        """Return the trainings of a fine-tune that were seen to end, oldest first."""
        query = (
            select(trainings)
            .where(trainings.c.account.in_(self._numbers(account)))
            .where(trainings.c.fine_tune == fine_tune_id)
            .order_by(trainings.c.sequence)
        )
        return [
            TrainingRecord(
                attempt=number,
                began_at=at(row.began_at),
                ended_at=at(row.ended_at),
                seconds=row.seconds,
                ended_as=row.ended_as,
            )
            for number, row in enumerate(self._connection.execute(query), 1)
        ]

    def usual_seconds(self, model_id: str) -> float | None:
        """Return the median of the model's last completed trainings, or None without one."""
        if model_id not in self._usual:
            self._usual[model_id] = usual_seconds(self._connection, model_id)
        return self._usual[model_id]

    def records(self, rows: Sequence[_Row]) -> list[FineTuneRecord]:
        """Return the records of rows of ``fine_tunes``."""
        last = self._last_trainings([(row.account, row.id) for row in rows])
        return [self._record(row, *last.get((row.account, row.id), (0, None))) for row in rows]

    def _record(self, row: _Row, ended: int, trained: float | None) -> FineTuneRecord:
        label: StatusLabel = FAILED if row.configured_failure else self._label(row.status)
        if label == TRAINING and row.missed_polls < _REMOVED_POLLS:
            trained = max(self._now - row.since, 0.0) if row.since_seen else None
        return FineTuneRecord(
            id=row.id,
            account=self._names[row.account],
            name=row.name,
            description=row.description,
            language=row.language,
            model_id=row.model_id,
            dataset=row.dataset,
            status=row.status,
            status_label=label,
            since=at(row.since),
            since_seen=row.since_seen,
            stuck=row.stuck,
            removed=row.missed_polls >= _REMOVED_POLLS,
            trainings=ended,
            trained_seconds=trained,
            usual_seconds=self.usual_seconds(row.model_id),
        )

    def _last_trainings(self, keys: Iterable[_Key]) -> dict[_Key, tuple[int, float | None]]:
        """Return the number of ended trainings, and the seconds of the last, by fine-tune."""
        found: dict[_Key, tuple[int, float | None]] = {}
        ids: dict[int, list[str]] = {}
        for account, fine_tune in keys:
            ids.setdefault(account, []).append(fine_tune)
        # Not with tuples: SQLite would read the whole table.
        chosen = [
            and_(trainings.c.account == account, trainings.c.fine_tune.in_(of_account))
            for account, of_account in ids.items()
        ]
        query = (
            select(trainings.c.account, trainings.c.fine_tune, trainings.c.seconds)
            .where(or_(false(), *chosen))
            .order_by(trainings.c.sequence)
        )
        for account, fine_tune, seconds in self._connection.execute(query):
            number, _ = found.get((account, fine_tune), (0, None))
            found[account, fine_tune] = number + 1, seconds
        return found

    def _cursor_values(self, request: PageRequest, column: ColumnElement[Any]) -> Sequence[Any]:
        query = (
            select(column, fine_tunes.c.account, fine_tunes.c.id)
            .where(fine_tunes.c.id == request.starting_after)
            .where(fine_tunes.c.account.in_(self._numbers(request.account)))
        )
        rows = self._connection.execute(query.limit(2)).all()
        if not rows:
            raise UnknownCursorError(f"there is no fine-tune {request.starting_after}")
        if len(rows) > 1:
            raise AmbiguousCursorError(
                f"several accounts have a fine-tune {request.starting_after}: give its account too"
            )
        return rows[0]

    @property
    def _account_place(self) -> ColumnElement[int]:
        """The place of an account's name in alphabetical order.

        Not the name: PostgreSQL would sort it as the language of the database does.
        """
        places = {name: place for place, name in enumerate(sorted({*self._names.values()}))}
        by_number = {number: places[name] for number, name in self._names.items()}
        return case(by_number, value=fine_tunes.c.account, else_=-1)

    def _numbers(self, account: str | None) -> list[int]:
        """Return the numbers of the accounts with this name; of all for None."""
        return [number for number, name in self._names.items() if account in {None, name}]

    def _matching(self, criteria: FineTuneFilter) -> Select[Any]:
        query = self._conditions(select(fine_tunes), criteria)
        if not criteria.statuses:
            return query.where(~_IS_REMOVED)
        distinct = (
            select(fine_tunes.c.status).where(fine_tunes.c.account.in_(self._names)).distinct()
        )
        stored = self._connection.scalars(distinct)
        wanted = {*criteria.statuses}
        statuses = [each for each in stored if self._label(each) in wanted]
        in_status = fine_tunes.c.status.in_(statuses) & ~fine_tunes.c.configured_failure
        conditions: list[ColumnElement[bool]] = [
            and_(~_IS_REMOVED, or_(in_status, fine_tunes.c.status.in_(sorted(wanted))))
        ]
        if FAILED in wanted:
            conditions.append(and_(~_IS_REMOVED, fine_tunes.c.configured_failure))
        if STUCK in criteria.statuses:
            conditions.append(and_(~_IS_REMOVED, fine_tunes.c.stuck))
        if REMOVED in criteria.statuses:
            conditions.append(_IS_REMOVED)
        return query.where(or_(*conditions))

    def _conditions(self, query: Select[Any], criteria: FineTuneFilter) -> Select[Any]:
        # Without a condition on accounts, the index by time gives the newest without sorting.
        if criteria.account is not None or not self._are_all:
            query = query.where(fine_tunes.c.account.in_(self._numbers(criteria.account)))
        for column in (fine_tunes.c.model_id, fine_tunes.c.dataset):
            if (value := getattr(criteria, column.name)) is not None:
                query = query.where(column == value)
        if text := searchable(criteria.text):
            query = query.where(fine_tunes.c.search.contains(text, autoescape=True))
        if criteria.changed_since is not None:
            query = query.where(fine_tunes.c.since >= criteria.changed_since)
        return query


def usual_seconds(
    connection: Connection, model_id: str, *, before: float | None = None
) -> float | None:
    """Return the median of a model's last completed trainings, or None without one.

    Only those count that ended ``before`` a time in Unix seconds, if it is given.
    """
    values = {"model": model_id, "before": inf if before is None else before}
    seconds = connection.scalars(_usual_query(), values).all()
    return median(seconds) if seconds else None


@cache
def _usual_query() -> Select[Any]:
    is_completed = and_(
        trainings.c.model_id == bindparam("model"), trainings.c.ended_as == COMPLETED
    )
    return (
        select(trainings.c.seconds)
        .where(is_completed, trainings.c.ended_at < bindparam("before"))
        .where(trainings.c.seconds.is_not(None))
        .order_by(trainings.c.ended_at.desc())
        .limit(USUAL_OF)
    )
