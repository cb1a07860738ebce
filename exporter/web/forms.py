"""Forms of the pages: retry and discard of deliveries, and mutes."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Final
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from exporter.core.links import fine_tune_path
from exporter.core.mutes import InvalidMuteError
from exporter.store.errors import StoreError
from exporter.store.mutes import UnknownMuteError
from exporter.web.actions import ActionError, Actions, name_of
from exporter.web.cross_site import is_cross_site
from exporter.web.lists import NOTIFICATIONS
from exporter.web.mutes import read_form
from exporter.web.pages import PagesContext, error_page
from exporter.web.requests import BodyTooLongError, read_body, user_of

_LONGEST_FORM: Final = 32 * 1024
_MOST_FIELDS: Final = 12

_LIFECYCLE_OFF: Final = "Start the agent with --web.enable-lifecycle to allow them."


class _FormError(Exception):
    """A form cannot be read; the text says why."""


class _OldFormError(Exception):
    """A form has no valid token; the text says what to do."""


_ERRORS: Final[Mapping[type[Exception], tuple[HTTPStatus, str]]] = {
    BodyTooLongError: (HTTPStatus.BAD_REQUEST, "The form is not valid"),
    _FormError: (HTTPStatus.BAD_REQUEST, "The form is not valid"),
    _OldFormError: (HTTPStatus.FORBIDDEN, "The form is not valid any more"),
    InvalidMuteError: (HTTPStatus.BAD_REQUEST, "Nothing was muted"),
    UnknownMuteError: (HTTPStatus.CONFLICT, "Nothing was changed"),
    ActionError: (HTTPStatus.CONFLICT, "Nothing was changed"),
}


class Forms:
    """Endpoint of all forms that change something."""

    def __init__(self, context: PagesContext) -> None:
        self._context = context

    def routes(self) -> list[BaseRoute]:
        """Return the route of the forms."""
        return [Route(NOTIFICATIONS, self.submit, methods=["POST"])]

    async def submit(self, request: Request) -> Response:
        """Make the change of a form, then lead back to the page with its result."""
        actions = self._context.actions
        if actions is None:
            return error_page(HTTPStatus.FORBIDDEN, "Changes are off", _LIFECYCLE_OFF)
        if is_cross_site(request):
            return error_page(
                HTTPStatus.FORBIDDEN, "Refused", "The request came from another site."
            )
        try:
            path = await _change(actions, await _read(request), user_of(request))
        except tuple(_ERRORS) as error:
            return error_page(*_ERRORS[type(error)], str(error))
        except StoreError as error:
            status = HTTPStatus.SERVICE_UNAVAILABLE
            return error_page(status, "The state cannot be written", str(error))
        back = path or _path_of(request.headers.get("referer", ""))
        return RedirectResponse(back, HTTPStatus.SEE_OTHER)


async def _change(actions: Actions, form: Mapping[str, str], user: str) -> str:
    """Make the change of a form; return the path of its result if it is not the form's page."""
    if not actions.token_is_valid(user, form.get("csrf", "")):
        raise _OldFormError(
            "The page is from an earlier day or another user. Load it again and repeat."
        )
    action, target = form.get("do", ""), form.get("id", "")
    if action == "mute":
        new = read_form(form)
        mute_id = await actions.add_mute(new.request(user))
        if new.fine_tune:
            return fine_tune_path(new.account, new.fine_tune)
        return f"{NOTIFICATIONS}?added={mute_id}#mutes"
    if action == "end-mute":
        await actions.end_mute(target, name_of(user))
    else:
        await actions.act(action, target, user)
    return ""


async def _read(request: Request) -> dict[str, str]:
    """Return the fields of a form. Raises BodyTooLongError, or _FormError for too many fields."""
    body = await read_body(request, _LONGEST_FORM)
    try:
        return dict(parse_qsl(body.decode(errors="replace"), max_num_fields=_MOST_FIELDS))
    except ValueError as error:
        raise _FormError(str(error)) from None


def _path_of(referrer: str) -> str:
    """Return the path and the query of the page of ours that a form was on."""
    _, _, rest = referrer.partition("://")
    path = f"/{rest.partition('/')[2]}"
    return path if path.startswith((NOTIFICATIONS, "/fine-tunes/")) else NOTIFICATIONS
