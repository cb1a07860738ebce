import pytest
import respx

from exporter.cartesia import fetch as lane
from exporter.cartesia import rate_limit as pace
from tests.fakes.clock import FakeClock


@pytest.fixture
def clock(monkeypatch):
    """Time that passes only while the client waits between two attempts."""
    fake = FakeClock()
    for module in (lane, pace):
        monkeypatch.setattr(module, "sleep", fake.sleep)
    return fake


@pytest.fixture
def api():
    """An API without a socket; a request that no route expects fails the test."""
    with respx.mock(assert_all_called=False) as router:
        yield router
