"""A fake of the Cartesia API on a loopback socket, which can fail in any way.

with FakeApi([fine_tune("a"), fine_tune("b", status="failed")]) as api:
    api.then(as_json({}, 503), silence)  # the next two requests
    ...                                    # all others are answered from api.fine_tunes
    assert api.requests[0].query["limit"] == "100"
"""

import ssl
from collections.abc import Iterable
from typing import Any

from tests.fakes.answers import as_json
from tests.fakes.server import Peer, Server


def fine_tune(fine_tune_id: str, **fields: Any) -> dict[str, Any]:
    """Return a fine-tune as JSON."""
    return {
        "id": fine_tune_id,
        "name": f"name of {fine_tune_id}",
        "description": "",
        "language": "en",
        "model_id": "sonic-3",
        "dataset": "dataset_1",
        "status": "completed",
        **fields,
    }


def page(fine_tunes: Iterable[dict[str, Any]], *, has_more: bool = False) -> dict[str, Any]:
    """Return a page as JSON."""
    return {"data": list(fine_tunes), "has_more": has_more}


def problem(status: int, message: str = "", **fields: Any) -> dict[str, Any]:
    """Return the body of an error answer."""
    return {
        "error_code": None,
        "title": f"Title {status}",
        "message": message,
        "request_id": "req-1",
        **fields,
    }


class FakeApi(Server):
    """Serves pages of `fine_tunes` by limit and starting_after, after the scripted answers."""

    def __init__(
        self, fine_tunes: Iterable[dict[str, Any]] = (), tls: ssl.SSLContext | None = None
    ) -> None:
        super().__init__(self._list, tls)
        self.fine_tunes = list(fine_tunes)

    def _list(self, peer: Peer) -> None:
        query = peer.request.query
        ids = [item["id"] for item in self.fine_tunes]
        cursor = query.get("starting_after")
        if cursor is not None and cursor not in ids:
            as_json(problem(404, "no such cursor"), 404)(peer)
            return
        begin = 0 if cursor is None else ids.index(cursor) + 1
        end = begin + int(query.get("limit", "10"))
        as_json(page(self.fine_tunes[begin:end], has_more=end < len(ids)))(peer)
