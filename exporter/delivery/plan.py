"""How the receivers are told."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from exporter.core.message import Pages
from exporter.core.model import Event


@dataclass(frozen=True, slots=True)
class DeliveryPlan:
    """When and how a receiver is told. Times are in seconds.

    ``route`` names the receivers of an event, and ``wake`` is called after a commit that owes them
    something.
    """

    store_id: str
    group_wait: float
    digest_threshold: int
    max_age: float
    pages: Pages
    route: Callable[[Event], Sequence[str]]
    wake: Callable[[], None]
