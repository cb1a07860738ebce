"""The front page: what this is, where to go on, and how the accounts are."""

import html
from collections.abc import Iterable
from typing import Final

from exporter import __version__
from exporter.core.model import STATUSES
from exporter.core.text import timestamp
from exporter.core.view import AccountStatus, Counts

HEADERS: Final = {
    # No script can run on the page, whatever is written into it.
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'",
    "X-Content-Type-Options": "nosniff",
}

_STYLE: Final = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 70rem;
  margin: 2em auto; padding: 0 1em }
table { border-collapse: collapse; margin: 1rem 0 }
th, td { border-bottom: 1px solid #bbb; padding: .3rem .8rem;
  text-align: left; white-space: nowrap }
.number { text-align: right; font-variant-numeric: tabular-nums }
footer { color: #666 }
"""


def front_page(views: Iterable[AccountStatus], telemetry_path: str, monotonic: float) -> str:
    """Return the page as HTML, at a monotonic time in seconds.

    Nothing of an account reaches it unescaped, and no count that is too old.
    """
    rows = "\n".join(_row(view, monotonic) for view in views)
    statuses = "".join(f'<th class="number">{status.capitalize()}</th>' for status in STATUSES)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>cartesia-exporter</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>cartesia-exporter</h1>
<p>Counts the fine-tunes of Cartesia accounts for Prometheus, and alerts when one fails.</p>
<ul>
<li><a href="{html.escape(telemetry_path)}">Metrics</a>: for Prometheus</li>
<li><a href="/config">Configuration</a>: what is in force, without its secrets</li>
<li><a href="/-/healthy">Healthy</a>: whether the agent itself works</li>
<li><a href="/-/ready">Ready</a>: whether its data is fresh</li>
</ul>
<h2>Accounts</h2>
<table>
<thead><tr><th>Account</th><th>Last poll</th><th>Last complete poll</th>{statuses}</tr></thead>
<tbody>
{rows}
</tbody>
</table>
<footer>Version {html.escape(__version__)}</footer>
</body>
</html>
"""


def _row(view: AccountStatus, monotonic: float) -> str:
    texts = (
        view.account,
        state_of(view, monotonic),
        timestamp(view.succeeded_at) if view.succeeded_at else "",
    )
    cells = "".join(f"<td>{html.escape(text) or '&ndash;'}</td>" for text in texts)
    counts = view.counts if view.is_fresh(monotonic) else None
    return f"<tr>{cells}{''.join(_number(counts, status) for status in STATUSES)}</tr>"


def state_of(view: AccountStatus, monotonic: float) -> str:
    """Return how an account's last poll ended, in words, and whether its data is too old."""
    old = "; its data is too old and withheld" if view.counts and view.is_stale(monotonic) else ""
    if view.up:
        return f"complete{old}"
    return f"failed: {view.failure.replace('_', ' ')}{old}" if view.failure else "not yet"


def _number(counts: Counts | None, status: str) -> str:
    if counts is None:
        return '<td class="number">&ndash;</td>'
    number = sum(n for key, n in counts.items() if key[-1] == status)
    return f'<td class="number">{number}</td>'
