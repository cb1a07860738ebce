"""Slack's Block Kit as HTML, to look at messages without Slack."""

import html
import re
from collections.abc import Callable
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

READER = ZoneInfo("Europe/Berlin")

STYLE = """
.slack { font: 13.5px/1.5 "DejaVu Sans", sans-serif, "Noto Color Emoji"; color: #1d1c1d;
  max-width: 640px; padding: 8px 20px; display: grid; grid-template-columns: 36px 1fr; gap: 8px; }
.slack .icon { width: 36px; height: 36px; border-radius: 6px; background: #5d6672; }
.slack .who { font-weight: 900; } .slack .who small { font-weight: 400; color: #616061; }
.slack .section { margin: 4px 0 8px; white-space: pre-wrap; overflow-wrap: anywhere; }
.slack .fields { display: grid; grid-template-columns: 1fr 1fr; gap: 8px; margin: 4px 0 8px; }
.slack .context { font-size: 12.5px; color: #616061; display: flex; flex-wrap: wrap; gap: 4px 10px;
  overflow-wrap: anywhere; }
.slack .header { font-size: 18px; font-weight: 900; margin: 4px 0 8px; }
.slack a { color: #1264a3; text-decoration: none; }
.slack code { font-size: 12px; color: #c01343; border: 1px solid #ddd; border-radius: 3px;
  padding: 1px 3px; background: #f6f6f6; }
.slack .mention { background: #fdf2d5; color: #1264a3; border-radius: 3px; padding: 0 2px; }
"""

_DATE = re.compile(r"<!date\^(\d+)\^([^|>]*)\|([^>]*)>")
_LINK = re.compile(r"<(https?://[^|>]*)\|([^>]*)>")
_MENTION = re.compile(r"<(?:!|@|#)(?:[^|>]*\|@)?([^>]*)>")


def message_html(body: dict[str, Any]) -> str:
    """Return a message as Slack shows it to a reader in Berlin."""
    blocks = body.get("blocks") or [{"type": "section", "text": _mrkdwn_object(body["text"])}]
    shown = "".join(_block(block) for block in blocks)
    who = '<div class="who">cartesia-exporter <small>APP 20:03</small></div>'
    return f'<div class="slack"><div class="icon"></div><div>{who}{shown}</div></div>'


def _mrkdwn_object(text: str) -> dict[str, Any]:
    return {"type": "mrkdwn", "text": text}


def _block(block: dict[str, Any]) -> str:
    render = {"section": _section, "header": _header, "context": _context}[block["type"]]
    return render(block)


def _section(block: dict[str, Any]) -> str:
    shown = f'<div class="section">{_text(block["text"])}</div>' if "text" in block else ""
    if "fields" in block:
        fields = "".join(f"<div>{_text(field)}</div>" for field in block["fields"])
        shown += f'<div class="fields">{fields}</div>'
    return shown


def _header(block: dict[str, Any]) -> str:
    return f'<div class="header">{_text(block["text"])}</div>'


def _context(block: dict[str, Any]) -> str:
    shown = "".join(f"<span>{_text(each)}</span>" for each in block["elements"])
    return f'<div class="context">{shown}</div>'


def _text(text: dict[str, Any]) -> str:
    """Return a text object; only its own markup becomes an element."""
    if text["type"] == "plain_text":
        return html.escape(text["text"])
    kept: list[str] = []

    def keep(replacement: Callable[[re.Match[str]], str]) -> Callable[[re.Match[str]], str]:
        def mark(found: re.Match[str]) -> str:
            kept.append(replacement(found))
            return f"\ue000{len(kept) - 1}\ue001"

        return mark

    # Everything within < and > is Slack's; what is left has &lt; in place of it.
    shown = _DATE.sub(keep(_date), text["text"])
    shown = _LINK.sub(keep(lambda m: f'<a href="{_attribute(m[1])}">{m[2]}</a>'), shown)
    shown = _MENTION.sub(keep(lambda m: f'<span class="mention">@{m[1]}</span>'), shown)
    shown = re.sub(r"`([^`\n]+)`", keep(lambda m: f"<code>{m[1]}</code>"), shown)
    shown = re.sub(r"(?<!\w)\*([^*\n]+)\*(?!\w)", r"<b>\1</b>", shown)
    shown = re.sub(r"(?<!\w)_([^_\n]+)_(?!\w)", r"<i>\1</i>", shown)
    return re.sub("\ue000(\\d+)\ue001", lambda found: kept[int(found[1])], shown)


def _attribute(url: str) -> str:
    return html.escape(html.unescape(url))


def _date(found: re.Match[str]) -> str:
    at = datetime.fromtimestamp(int(found[1]), READER)
    shown = found[2].replace("{date_short_pretty}", "today").replace("{time}", f"{at:%H:%M}")
    return f'<time title="{found[3]}">{shown}</time>'
