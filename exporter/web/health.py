"""What supervisors and load balancers are told."""

from collections.abc import Iterable

from exporter.core.health import Health
from exporter.core.readiness import Readiness
from exporter.core.view import AccountView
from exporter.web.front import state_of


def healthy_text(now: Health, *, detailed: bool) -> str:
    """Return whether the agent itself works; ``detailed`` names the parts that are late."""
    word = "healthy" if now.healthy else "not healthy"
    late = sorted(now.late.items()) if detailed else ()
    lines = (f"{part}: {seconds:.0f} s late\n" for part, seconds in late)
    return f"cartesia-exporter is {word}: {now.counts}.\n{''.join(lines)}"


def ready_text(now: Readiness, views: Iterable[AccountView], *, detailed: bool) -> str:
    """Return whether the data can be relied on; ``detailed`` adds the accounts' names and why."""
    word = "ready" if now.ready else "not ready"
    counts = f"{now.fresh} of {now.accounts} accounts have a fresh snapshot"
    if not detailed:
        return f"cartesia-exporter is {word}: {counts}.\n"
    stored = f"; the state cannot be stored: {now.trouble}" if now.trouble else ""
    lines = [f"{view.account}: {state_of(view)}\n" for view in views if not view.up]
    return f"cartesia-exporter is {word}: {counts}{stored}.\n{''.join(lines)}"
