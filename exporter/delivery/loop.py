"""Loop of a delivery service, and the times at which its receiver may be tried."""

import asyncio
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

import structlog

from exporter.core.clock import Clock
from exporter.core.retry import CIRCUIT_CLOSED, Attempt, CircuitState, Outcome
from exporter.delivery.metrics import DeliveryMetrics
from exporter.store.errors import NOT_OWNER, StoreError, StoreFencedError
from exporter.store.receiver_outbox import ReceiverOutbox, ReceiverState
from exporter.supervisor import pause

LOOK_SECONDS: Final = 5.0
"""Longest time between two looks at the outbox: other processes change it without a wake-up."""

SHARED_LOOK_SECONDS: Final = 30.0
"""The same among replicas: each renewal of the lease looks whether another process wrote."""

LOGGED_EVENTS: Final = 3
"""Number of events that a log line about a delivery names."""

NOT_RENDERED: Final = Attempt(Outcome.PAYLOAD, "it cannot be rendered; the log says why")
"""The attempt of a message without bytes: nothing is sent, and the circuit does not change."""

log = structlog.get_logger()


class RetrySchedule:
    """Circuit of one receiver, and when it may be tried again.

    Pauses are kept on the monotonic clock only, so that a start tries at once.
    """

    def __init__(self, clock: Clock, awake: Callable[[], float], spacing: float) -> None:
        self.circuit: CircuitState = CIRCUIT_CLOSED
        self._clock = clock
        self._awake = awake
        self._spacing = spacing
        self._spaced_until = 0.0
        self._paused_until = 0.0
        self._retry_requests: int | None = None

    def apply(self, state: ReceiverState) -> bool:
        """Apply the stored state; return whether it requests a retry, which ends the pause.

        Only the first call applies the circuit: later it is known better here.
        """
        before, self._retry_requests = self._retry_requests, state.retry_requests
        if before is None:
            self.circuit = state.circuit
            return False
        if before == state.retry_requests:
            return False
        self._paused_until = 0.0
        return True

    def wait(self) -> float:
        """Return the seconds until the receiver may be tried; 0 if it may now."""
        until = max(self._spaced_until, self._paused_until)
        return max(until - self._clock.monotonic(), 0.0)

    def resume_at(self) -> float:
        """Return the Unix time from which on the receiver may be tried."""
        return self._clock.now() + self.wait()

    def record_attempt(self, attempt: Attempt) -> None:
        """Update circuit and pause after an attempt."""
        at, awake = self._clock.monotonic(), self._awake()
        self.circuit = self.circuit.after(attempt, self._clock.now(), awake)
        self._spaced_until = at + self._spacing
        self._paused_until = at + self.circuit.pause(attempt, awake, self._clock.random())


class DeliveryLoop(ABC):
    """Runs the turns of one receiver: on wake-up, when one is due, and every ``look_seconds``.

    ``wakeup_deadline`` is the monotonic time by which the next wake-up will be set.
    """

    wakeup_deadline = math.inf

    def __init__(
        self, outbox: ReceiverOutbox, metrics: DeliveryMetrics, clock: Clock, spacing: float
    ) -> None:
        self.name = outbox.receiver
        self._is_shared = outbox.is_shared
        self.schedule = RetrySchedule(clock, outbox.awake_now, spacing)
        self._metrics = metrics
        self._clock = clock
        self._changed = asyncio.Event()
        self._store_error = ""
        self._log = log.bind(receiver=self.name)

    @abstractmethod
    async def deliver_due(self) -> float:
        """Make one request if one is due; return the seconds until the next look.

        Raises StoreError when the store cannot be read. While it cannot be written, requests go on
        and their results are stored later.
        """

    @property
    def look_seconds(self) -> float:
        """Return the longest time between two looks at the outbox."""
        return SHARED_LOOK_SECONDS if self._is_shared else LOOK_SECONDS

    def wake(self) -> None:
        """Start the next turn now: the outbox changed."""
        self._changed.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Run turns until ``stop`` is set; a request in flight is finished."""
        stopping = asyncio.ensure_future(stop.wait())
        stopping.add_done_callback(lambda _: self.wake())
        try:
            while not stop.is_set():
                self._changed.clear()
                self.wakeup_deadline = self._clock.monotonic()
                wait = LOOK_SECONDS
                with suppress(*NOT_OWNER), self.log_store_error():
                    wait = min(await self.deliver_due(), self.look_seconds)
                if wait > 0 and not stop.is_set():
                    self.wakeup_deadline = self._clock.monotonic() + wait
                    await pause(self._changed, wait)
        finally:
            stopping.cancel()

    @contextmanager
    def request(self, seconds: float) -> Iterator[None]:
        """Allow ``seconds`` for the request within the context, and count it."""
        started = self._clock.monotonic()
        self.wakeup_deadline = started + seconds
        yield
        self.wakeup_deadline = self._clock.monotonic()
        self._metrics.record_request(self.name, self.wakeup_deadline - started)

    @contextmanager
    def log_store_error(self) -> Iterator[None]:
        """Log a StoreError of the context instead of raising it; the same text is logged once.

        The errors of NOT_OWNER are raised too: what another agent sends must not be sent twice.
        """
        try:
            yield
        except StoreFencedError:
            raise  # the owner of the lease logs it
        except StoreError as error:
            if str(error) != self._store_error:
                self._store_error = str(error)
                self._log.error("outbox unavailable", error=self._store_error)
            if isinstance(error, NOT_OWNER):
                raise

    def log_store_recovery(self) -> None:
        """Log that the store can be used again, if it could not."""
        if self._store_error:
            self._log.info("outbox available again")
            self._store_error = ""
