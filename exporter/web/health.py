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


def ready_text(now: Readiness, troubled: Iterable[str], *, detailed: bool) -> str:
    """Return whether the data can be relied on; ``detailed`` adds why not, and who is troubled."""
    word = "ready" if now.ready else "not ready"
    counts = f"{now.fresh} of {now.accounts} accounts have a fresh snapshot"
    if not detailed:
        return f"cartesia-exporter is {word}: {counts}.\n"
    stored = f"; the state cannot be stored: {now.trouble}" if now.trouble else ""
    lines = "".join(f"{line}\n" for line in troubled)
    return f"cartesia-exporter is {word}: {counts}{stored}.\n{lines}"


def troubles(views: Iterable[AccountView], monotonic: float) -> list[str]:
    """Return the accounts that could not be read last or for too long, at a monotonic time."""
    return [
        f"{view.account}: {state_of(view, monotonic)}"
        for view in views
        if not view.up or view.is_stale(monotonic)
    ]
