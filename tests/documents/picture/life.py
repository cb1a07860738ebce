"""Minutes of a simulated API, an agent, its receivers and a Prometheus, with trouble in them."""

import contextlib
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from starlette.requests import Request
from starlette.responses import PlainTextResponse

from exporter.simulator.world import Population, World
from tests.process.agent import Agent, until, url_of
from tests.process.cloud import Arrived, cloud, watching, webhook
from tests.process.prometheus import Prometheus, prometheus

SECONDS = 600
_TICK_SECONDS = 5
_POPULATION = Population(fine_tunes=40, fail_rate=0.25, churn=0.3, reattempt_rate=0.02)


class Trouble:
    """What is down when, in seconds from the beginning; one receiver refuses what it is sent."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def _within(self, begin: float, end: float) -> bool:
        return begin <= time.monotonic() - self._began < end

    def api(self, _request: Request) -> PlainTextResponse | None:
        return PlainTextResponse("down", 500) if self._within(200, 245) else None

    def receiver(self, arrived: Arrived) -> PlainTextResponse:
        down = arrived.path == "/pager" and self._within(300, 400)
        refused = arrived.path == "/refusing"
        return PlainTextResponse("", 503 if down else 422 if refused else 200)


@contextlib.contextmanager
def lived(seconds: float = SECONDS) -> Iterator[Prometheus]:
    """Yield a Prometheus that has scraped an agent each second for so long, and still does."""
    with tempfile.TemporaryDirectory() as name, cloud(world=World(_POPULATION)) as (api, inbox):
        folder, trouble = Path(name), Trouble()
        api.answer, inbox.answer = trouble.api, trouble.receiver
        receivers = (webhook(inbox, each) for each in ("ops", "pager", "refusing"))
        config = watching(api, *receivers, stale_after="20s")
        config["alerts"]["poll_failing_after"] = "10s"
        with Agent(folder, **config).process() as process:
            target = url_of(process).removeprefix("http://")
            with prometheus(folder, target) as scraping:
                until(lambda: scraping.value("cartesia_up") == 1)
                end = time.monotonic() + seconds
                while time.monotonic() < end:
                    api.world.tick()
                    time.sleep(_TICK_SECONDS)
                yield scraping
