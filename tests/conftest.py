"""Fixtures and settings for all tests: no proxy and no variables of the machine."""

import os

import pytest
from hypothesis import HealthCheck, settings

# Without Hypothesis's own limits of time: a machine that is busy is no bug. What `make test` has
# no time for, `make soak` looks at, with --hypothesis-profile.
for _profile, _examples in {"soak": 500, "quick": 40}.items():
    settings.register_profile(
        _profile,
        max_examples=_examples,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
settings.load_profile("quick")

_OURS = ("CARTESIA_", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


def pytest_xdist_auto_num_workers() -> int:
    """Twice as many as there are processors: many tests wait for processes and timers."""
    return 2 * (os.cpu_count() or 2)


@pytest.fixture(scope="session")
def anyio_backend():
    """Run async tests on asyncio, which the agent uses."""
    return "asyncio"


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    for name in list(os.environ):
        if name.upper().startswith(_OURS):
            monkeypatch.delenv(name)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")


@pytest.fixture
def unmeasured(monkeypatch):
    """Start this test's processes without coverage, which is a third of what a start costs.

    For those of which it would learn nothing: they are killed, or do what others are measured at.
    """
    monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)
