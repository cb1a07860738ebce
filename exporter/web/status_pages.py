"""The status page at ``/``: links, and the last poll and the counts of each account."""

import base64
import hashlib
import html
from collections.abc import Iterable
from typing import Final

from exporter import __version__
from exporter.core.model import STATUSES
from exporter.core.text import timestamp
from exporter.core.view import AccountStatus, Counts
from exporter.web.scrape import NO_SNIFF

_STYLE: Final = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 70rem;
  margin: 2em auto; padding: 0 1em }
table { border-collapse: collapse; margin: 1rem 0 }
th, td { border-bottom: 1px solid #bbb; padding: .3rem .8rem;
  text-align: left; white-space: nowrap }
.number { text-align: right; font-variant-numeric: tabular-nums }
footer { color: #666 }
"""
_STYLE_HASH: Final = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()

SECURITY_HEADERS: Final = {
    # Second defence behind escaping: no script can run on the page, and no other page can show it.
    "Content-Security-Policy": (
        f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none';"
        " form-action 'self'; frame-ancestors 'none'"
    ),
    **NO_SNIFF,
}


def status_page(statuses: Iterable[AccountStatus], telemetry_path: str, monotonic: float) -> str:
    """Return the page as HTML at a monotonic time in seconds.

    All text of accounts is escaped, and stale counts are left out.
    """
    rows = "\n".join(_row(each, monotonic) for each in statuses)
    headings = "".join(f'<th class="number">{name.capitalize()}</th>' for name in STATUSES)
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
<thead><tr><th>Account</th><th>Last poll</th><th>Last complete poll</th>{headings}</tr></thead>
<tbody>
{rows}
</tbody>
</table>
<footer>Version {html.escape(__version__)}</footer>
</body>
</html>
"""


def _row(status: AccountStatus, monotonic: float) -> str:
    texts = (
        status.account,
        describe_poll(status, monotonic),
        timestamp(status.succeeded_at) if status.succeeded_at else "",
    )
    cells = "".join(f"<td>{html.escape(text) or '&ndash;'}</td>" for text in texts)
    counts = status.counts if status.is_fresh(monotonic) else None
    return f"<tr>{cells}{''.join(_number(counts, name) for name in STATUSES)}</tr>"


def describe_poll(status: AccountStatus, monotonic: float) -> str:
    """Return the result of the last poll in words, and whether the data is withheld as stale."""
    is_withheld = status.counts and status.is_stale(monotonic)
    note = "; its data is too old and withheld" if is_withheld else ""
    if status.up:
        return f"complete{note}"
    return f"failed: {status.failure.replace('_', ' ')}{note}" if status.failure else "not yet"


def _number(counts: Counts | None, name: str) -> str:
    if counts is None:
        return '<td class="number">&ndash;</td>'
    number = sum(n for key, n in counts.items() if key[-1] == name)
    return f'<td class="number">{number}</td>'
