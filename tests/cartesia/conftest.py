import pytest
import respx

from exporter.cartesia import fetch, rate_limit
from tests.fakes.clock import FakeClock


@pytest.fixture
def clock(monkeypatch):
    """A clock that advances only while the client sleeps between attempts."""
    fake = FakeClock()
    for module in (fetch, rate_limit):
        monkeypatch.setattr(module, "sleep", fake.sleep)
    return fake


@pytest.fixture
def api():
    """An API without sockets; a request that matches no route fails the test."""
    with respx.mock(assert_all_called=False) as router:
        yield router
