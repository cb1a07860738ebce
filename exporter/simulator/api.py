"""Simulated HTTP API of Cartesia's fine-tunes, with faults that can be switched on.

The contract is that of docs.cartesia.ai, API reference, fine-tunes, list, and of its pages on API
conventions and API errors. Where these are silent (the bounds of the limit, an unknown cursor, a
missing version), the simulator is strict, so that it exposes a careless client.
"""

import asyncio
import re
import time
import uuid
from dataclasses import dataclass, field
from datetime import date
from http import HTTPStatus
from math import ceil, inf
from random import Random  # noqa: TID251 - seeded: the same requests fail in each run

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

# Documented are only the fields of an error, and that its code may be null
# (docs.cartesia.ai/use-the-api/api-errors). These codes are plausible, not Cartesia's.
ERROR_CODES = {
    HTTPStatus.BAD_REQUEST: "invalid_request",
    HTTPStatus.UNAUTHORIZED: "unauthorized",
    HTTPStatus.FORBIDDEN: "forbidden",
    HTTPStatus.NOT_FOUND: "not_found",
    HTTPStatus.TOO_MANY_REQUESTS: "rate_limited",
}
SIMULATED_ERRORS = (
    HTTPStatus.INTERNAL_SERVER_ERROR,
    HTTPStatus.BAD_GATEWAY,
    HTTPStatus.SERVICE_UNAVAILABLE,
)


@dataclass(frozen=True, slots=True)
class Faults:
    """Simulated faults of the API.

    `latency` is the delay of every response in seconds. `error_rate` is the share (0 to 1) of
    requests answered with 500, 502 or 503. `rate_limit` is in requests per second, 0 for none.
    """

    latency: float = 0.0
    error_rate: float = 0.0
    rate_limit: float = 0.0


@dataclass(slots=True)
class Simulation:
    """The world and the faults of an API; both may be replaced while the API is served."""

    world: World
    faults: Faults = field(default_factory=Faults)


def create_app(simulation: Simulation) -> Starlette:
    """Return the API as an ASGI application that looks at `simulation` for each request."""

    async def list_fine_tunes(request: Request) -> Response:
        _check_headers(request.headers)
        return _list_response(simulation.world, request.query_params)

    async def get_fine_tune(request: Request) -> Response:
        _check_headers(request.headers)
        try:
            return _json_response(simulation.world.get(request.path_params["fine_tune_id"]))
        except UnknownFineTuneError:
            raise HTTPException(
                HTTPStatus.NOT_FOUND, "There is no fine-tune with this id."
            ) from None

    app = Starlette(
        routes=[
            Route("/", _api_status),
            Route("/fine-tunes", list_fine_tunes),
            Route("/fine-tunes/", list_fine_tunes),
            Route("/fine-tunes/{fine_tune_id}", get_fine_tune),
        ],
        middleware=[Middleware(_FaultMiddleware, simulation=simulation)],
        exception_handlers={HTTPException: _error_handler, Exception: _error_handler},
    )
    app.router.redirect_slashes = False
    return app


class _FaultMiddleware:
    """Middleware that delays requests and answers some of them with an error."""

    def __init__(self, app: ASGIApp, simulation: Simulation) -> None:
        self._app = app
        self._simulation = simulation
        self._bucket = _TokenBucket()
        self._random = Random(0)  # noqa: S311 - simulated faults, no secret

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        faults = self._simulation.faults
        await asyncio.sleep(faults.latency)
        wait = self._bucket.take(faults.rate_limit, time.monotonic())
        app = self._app
        if wait > 0:
            headers = {"Retry-After": str(ceil(wait))}
            app = _error(HTTPStatus.TOO_MANY_REQUESTS, "Too many requests.", headers)
        elif self._random.random() < faults.error_rate:
            app = _error(self._random.choice(SIMULATED_ERRORS), "A simulated fault.")
        await app(scope, receive, send)


class _TokenBucket:
    """Token bucket with the requests of one second, at least one."""

    def __init__(self) -> None:
        self._tokens = 0.0
        self._filled_at = -inf

    def take(self, rate: float, now: float) -> float:
        """Take a token at `now` (seconds) and return 0, or return the seconds until the next one.

        `rate` is in tokens per second; 0 means no limit and refills the bucket.
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


async def _api_status(_request: Request) -> Response:
    """Return the API's status; no key is needed (docs.cartesia.ai, API reference, API status)."""
    return JSONResponse({"ok": True, "version": LATEST_VERSION})


def _list_response(world: World, query: QueryParams) -> Response:
    """Return one page; raise HTTPException 400 for a bad query and 404 for an unknown cursor."""
    starting_after = _nullable(query, "starting_after")
    ending_before = _nullable(query, "ending_before")
    if starting_after is not None and ending_before is not None:
        raise HTTPException(
            HTTPStatus.BAD_REQUEST, "Give starting_after or ending_before, not both."
        )
    try:
        return _json_response(world.page(_limit(query), starting_after, ending_before))
    except UnknownFineTuneError:
        raise HTTPException(
            HTTPStatus.NOT_FOUND, "There is no fine-tune with the cursor's id."
        ) from None


def _limit(query: QueryParams) -> int:
    """Return the page size; raise HTTPException 400 unless it is a number from 1 to 100."""
    text = _nullable(query, "limit")
    if text is None:
        return DEFAULT_LIMIT
    # `int` alone would refuse very long numbers, and accept signs and digits of other scripts.
    if not re.fullmatch("[0-9]{1,3}", text) or not 1 <= int(text) <= MAX_LIMIT:
        raise HTTPException(
            HTTPStatus.BAD_REQUEST, f"limit must be a number from 1 to {MAX_LIMIT}."
        )
    return int(text)


def _nullable(query: QueryParams, name: str) -> str | None:
    """Return a parameter's value or None; in a query, null is the text "null"."""
    value = query.get(name)
    return None if value in ("", "null") else value


def _check_headers(headers: Headers) -> None:
    """Raise HTTPException unless the request has a standard key (401, 403) and a version (400).

    The key may be in either of two headers. Of several version headers one must be well-formed: an
    SDK may add a version of its own (docs.cartesia.ai/use-the-api/api-conventions).
    """
    key = _key(headers)
    if not key.startswith("sk_car_"):
        raise HTTPException(HTTPStatus.UNAUTHORIZED, "Missing or invalid API key.")
    if key.startswith("sk_car_admin_"):
        raise HTTPException(HTTPStatus.FORBIDDEN, "Admin API keys work on admin routes only.")
    versions = ",".join(headers.getlist("cartesia-version")).split(",")
    if not any(_is_date(version.strip()) for version in versions):
        raise HTTPException(
            HTTPStatus.BAD_REQUEST, "The Cartesia-Version header must be a date: YYYY-MM-DD."
        )


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


def _json_response(body: msgspec.Struct) -> Response:
    return Response(msgspec.json.encode(body), media_type="application/json")


async def _error_handler(_request: Request, error: Exception) -> Response:
    """Return any error in the API's form, also 404 of a path, 405 of a method and 500 of a bug."""
    if isinstance(error, HTTPException):
        return _error(error.status_code, error.detail, dict(error.headers or {}))
    return _error(HTTPStatus.INTERNAL_SERVER_ERROR, "The simulator has a bug.")


def _error(status: int, message: str, headers: dict[str, str] | None = None) -> Response:
    """Return an error response (docs.cartesia.ai/use-the-api/api-errors, as of 2026-03-01)."""
    body = {
        "error_code": ERROR_CODES.get(HTTPStatus(status)),
        "title": HTTPStatus(status).phrase,
        "message": message,
        "request_id": str(uuid.uuid4()),
    }
    return JSONResponse(body, status, headers)
