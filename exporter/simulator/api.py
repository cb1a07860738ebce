"""The list of fine-tunes over HTTP, as Cartesia serves it, with faults that can be switched on.

The contract is that of docs.cartesia.ai, API reference, fine-tunes, list, and of its pages on API
conventions and API errors. What these leave open (the default limit's edges, an unknown cursor, a
missing version) is answered strictly here, so that a careless client is found out.
"""

import asyncio
import re
import time
import uuid
from dataclasses import dataclass, field
from datetime import date
from http import HTTPStatus
from math import ceil, inf
from random import Random  # noqa: TID251 - seeded: which requests fail repeats from run to run

import msgspec
from starlette.applications import Starlette
from starlette.datastructures import Headers, QueryParams
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from exporter.simulator.world import UnknownFineTuneError, World

LATEST_VERSION = "2026-08-14"
DEFAULT_LIMIT = 10
MAX_LIMIT = 100

# Only the shape of an error is documented (docs.cartesia.ai/use-the-api/api-errors), and that its
# code may be null; these codes are plausible, not Cartesia's.
ERROR_CODES = {
    400: "invalid_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    429: "rate_limited",
}


@dataclass(frozen=True, slots=True)
class Faults:
    """What is wrong with the API.

    `latency` is in seconds and precedes every answer. `error_rate` is the share (0 to 1) of
    requests answered with 500, 502 or 503. `rate_limit` is in requests per second, 0 for none.
    """

    latency: float = 0.0
    error_rate: float = 0.0
    rate_limit: float = 0.0


@dataclass(slots=True)
class Simulation:
    """The world behind an API and its faults; both may be replaced while the API is served."""

    world: World
    faults: Faults = field(default_factory=Faults)


def create_app(simulation: Simulation) -> Starlette:
    """Return the API as an ASGI application that reads `simulation` anew for each request."""

    async def list_fine_tunes(request: Request) -> Response:
        _admit(request.headers)
        return _list(simulation.world, request.query_params)

    async def get_fine_tune(request: Request) -> Response:
        _admit(request.headers)
        try:
            return _json(simulation.world.get(request.path_params["fine_tune_id"]))
        except UnknownFineTuneError:
            raise HTTPException(404, "There is no fine-tune with this id.") from None

    app = Starlette(
        routes=[
            Route("/", _status),
            Route("/fine-tunes", list_fine_tunes),
            Route("/fine-tunes/", list_fine_tunes),
            Route("/fine-tunes/{fine_tune_id}", get_fine_tune),
        ],
        middleware=[Middleware(_Faulty, simulation=simulation)],
        exception_handlers={HTTPException: _explain, Exception: _explain},
    )
    app.router.redirect_slashes = False
    return app


class _Faulty:
    """Middleware that delays requests and answers some of them itself, with an error."""

    def __init__(self, app: ASGIApp, simulation: Simulation) -> None:
        self._app = app
        self._simulation = simulation
        self._bucket = _Bucket()
        self._random = Random(0)  # noqa: S311 - simulated faults, no secret

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        faults = self._simulation.faults
        await asyncio.sleep(faults.latency)
        wait = self._bucket.take(faults.rate_limit, time.monotonic())
        answer = self._app
        if wait > 0:
            answer = _error(429, "Too many requests.", {"Retry-After": str(ceil(wait))})
        elif self._random.random() < faults.error_rate:
            answer = _error(self._random.choice((500, 502, 503)), "A simulated fault.")
        await answer(scope, receive, send)


class _Bucket:
    """A token bucket that holds one second's worth of requests, at least one."""

    def __init__(self) -> None:
        self._tokens = 0.0
        self._filled_at = -inf

    def take(self, rate: float, now: float) -> float:
        """Take a token at `now` (seconds) and return 0, or return the seconds until there is one.

        `rate` is in tokens per second; 0 is no limit, and refills the bucket.
        """
        if rate <= 0:
            self._filled_at = -inf
            return 0.0
        self._tokens = min(max(rate, 1.0), self._tokens + (now - self._filled_at) * rate)
        self._filled_at = now
        if self._tokens < 1:
            return (1 - self._tokens) / rate
        self._tokens -= 1
        return 0.0


async def _status(_request: Request) -> Response:
    """Answer without a key (docs.cartesia.ai, API reference, API status)."""
    return JSONResponse({"ok": True, "version": LATEST_VERSION})


def _list(world: World, query: QueryParams) -> Response:
    """Answer one page; raise HTTPException 400 for a bad query and 404 for an unknown cursor."""
    starting_after = _optional(query, "starting_after")
    ending_before = _optional(query, "ending_before")
    if starting_after is not None and ending_before is not None:
        raise HTTPException(400, "Give starting_after or ending_before, not both.")
    try:
        return _json(world.page(_limit(query), starting_after, ending_before))
    except UnknownFineTuneError:
        raise HTTPException(404, "There is no fine-tune with the cursor's id.") from None


def _limit(query: QueryParams) -> int:
    """Return the page size; raise HTTPException 400 for anything but a number from 1 to 100."""
    text = _optional(query, "limit")
    if text is None:
        return DEFAULT_LIMIT
    # Three digits at most: `int` refuses very long numbers and accepts signs and other scripts.
    if not re.fullmatch("[0-9]{1,3}", text) or not 1 <= int(text) <= MAX_LIMIT:
        raise HTTPException(400, f"limit must be a number from 1 to {MAX_LIMIT}.")
    return int(text)


def _optional(query: QueryParams, name: str) -> str | None:
    """Return a parameter's value; all three are nullable, and a null in a query is a text."""
    value = query.get(name)
    return None if value in ("", "null") else value


def _admit(headers: Headers) -> None:
    """Raise HTTPException unless the request has a standard key (401, 403) and a version (400).

    Both headers for the key are accepted, and a version header sent twice when one is well-formed,
    as an SDK with a version of its own may do (docs.cartesia.ai/use-the-api/api-conventions).
    """
    key = _key(headers)
    if not key.startswith("sk_car_"):
        raise HTTPException(401, "Missing or invalid API key.")
    if key.startswith("sk_car_admin_"):
        raise HTTPException(403, "Admin API keys work on admin routes only.")
    versions = ",".join(headers.getlist("cartesia-version")).split(",")
    if not any(_is_date(version.strip()) for version in versions):
        raise HTTPException(400, "The Cartesia-Version header must be a date: YYYY-MM-DD.")


def _key(headers: Headers) -> str:
    if "authorization" not in headers:
        return headers.get("x-api-key", "").strip()
    scheme, _, key = headers["authorization"].partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""


def _is_date(text: str) -> bool:
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def _json(body: msgspec.Struct) -> Response:
    return Response(msgspec.json.encode(body), media_type="application/json")


async def _explain(_request: Request, error: Exception) -> Response:
    """Answer any error, also an unknown path's 404, a 405 and a bug's 500, in the API's shape."""
    if isinstance(error, HTTPException):
        return _error(error.status_code, error.detail, dict(error.headers or {}))
    return _error(500, "The simulator has a bug.")


def _error(status: int, message: str, headers: dict[str, str] | None = None) -> Response:
    """Return an error answer (docs.cartesia.ai/use-the-api/api-errors, as of 2026-03-01)."""
    body = {
        "error_code": ERROR_CODES.get(status),
        "title": HTTPStatus(status).phrase,
        "message": message,
        "request_id": str(uuid.uuid4()),
    }
    return JSONResponse(body, status, headers)
