"""Requests of the JSON API that change something."""

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from http import HTTPStatus
from typing import Final, TypeVar

import msgspec
from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from exporter.core.mutes import InvalidMuteError
from exporter.store.errors import StoreError
from exporter.store.mutes import UnknownMuteError
from exporter.web.actions import ActionError, Actions, name_of
from exporter.web.answers import JSON, ChangeAnswer, MuteAnswer, error_answer, json_answer
from exporter.web.cross_site import is_cross_site
from exporter.web.mutes import MuteEnd, NewMute
from exporter.web.pages import PagesContext
from exporter.web.requests import BodyTooLongError, read_body, user_of

_Body = TypeVar("_Body")

_LONGEST_BODY: Final = 128 * 1024


class _RefusedError(Exception):
    """A body is not valid; the text says why."""


_ERRORS: Final[Mapping[type[Exception], tuple[HTTPStatus, str]]] = {
    BodyTooLongError: (HTTPStatus.BAD_REQUEST, "Invalid request"),
    _RefusedError: (HTTPStatus.BAD_REQUEST, "Invalid request"),
    InvalidMuteError: (HTTPStatus.BAD_REQUEST, "Invalid request"),
    UnknownMuteError: (HTTPStatus.NOT_FOUND, "Not found"),
    ActionError: (HTTPStatus.CONFLICT, "Nothing was changed"),
}


class Changes:
    """Endpoints that change something."""

    def __init__(self, context: PagesContext) -> None:
        self._context = context

    def routes(self, prefix: str) -> list[BaseRoute]:
        """Return the routes, below a path."""
        repairs = (
            Route(
                f"{prefix}/deliveries/{{id:text}}/{action}",
                self._post(partial(self._repair, action)),
                methods=["POST"],
            )
            for action in ("retry", "discard")
        )
        return [
            *repairs,
            Route(f"{prefix}/mutes", self._post(self._add_mute), methods=["POST"]),
            Route(f"{prefix}/mutes/{{id:text}}/end", self._post(self._end_mute), methods=["POST"]),
        ]

    def _post(
        self, change: Callable[[Actions, Request], Awaitable[Response]]
    ) -> Callable[[Request], Awaitable[Response]]:
        """Return the endpoint of a change: who may not make it is refused before."""

        async def endpoint(request: Request) -> Response:
            actions = self._context.actions
            if actions is None:
                text = "Start the agent with --web.enable-lifecycle to allow changes."
                return error_answer(HTTPStatus.FORBIDDEN, "Changes are off", text)
            if refusal := _refusal(request):
                return refusal
            try:
                return await change(actions, request)
            except tuple(_ERRORS) as error:
                return error_answer(*_ERRORS[type(error)], str(error))
            except StoreError as error:
                status = HTTPStatus.SERVICE_UNAVAILABLE
                return error_answer(status, "The state cannot be used", str(error))

        return endpoint

    async def _repair(self, action: str, actions: Actions, request: Request) -> Response:
        changed = await actions.act(action, request.path_params["id"], user_of(request))
        return json_answer(ChangeAnswer(changed=sum(changed.values())))

    async def _add_mute(self, actions: Actions, request: Request) -> Response:
        body = await _read(request, NewMute)
        mute_id = await actions.add_mute(body.request(user_of(request)))
        return json_answer(await self._answer(mute_id))

    async def _end_mute(self, actions: Actions, request: Request) -> Response:
        body, mute_id = await _read(request, MuteEnd), request.path_params["id"]
        await actions.end_mute(mute_id, name_of(user_of(request), body.author))
        return json_answer(await self._answer(mute_id))

    async def _answer(self, mute_id: str) -> MuteAnswer:
        def build(connection: Connection) -> MuteAnswer:
            view = self._context.view(connection)
            mute = next(each for each in view.mutes if each.id == mute_id)
            matches = view.fine_tunes.count_selected(mute, view.account_labels)
            return MuteAnswer(mute=mute, matches=matches)

        return await self._context.reader.read(build)


def _refusal(request: Request) -> Response | None:
    """Return the answer to a request that a page of another site may have sent; else None."""
    # A form of another site cannot send this content type without asking first.
    if request.headers.get("content-type", "").partition(";")[0].strip() != JSON:
        text = f"Send Content-Type: {JSON}."
        return error_answer(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "Wrong content type", text)
    if is_cross_site(request):
        text = "The request came from another site."
        return error_answer(HTTPStatus.FORBIDDEN, "Refused", text)
    return None


async def _read(request: Request, body_type: type[_Body]) -> _Body:
    """Return the decoded body of a request. Raises BodyTooLongError, _RefusedError."""
    body = await read_body(request, _LONGEST_BODY)
    try:
        return msgspec.json.decode(body or b"{}", type=body_type)
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise _RefusedError(f"The body is not valid: {error}") from None
