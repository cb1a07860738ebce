"""`mutes`: add, list and end mutes, beside a running agent or with its API."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import quote

import click

from exporter.cli.agent_api import AgentApi, AgentApiError, open_agent, refuse_agent_options
from exporter.cli.exits import RUNTIME_ERROR, fail, standard_output
from exporter.cli.options import Duration, limit_option, login_name, output_option
from exporter.cli.output import Layout, Record, write_records
from exporter.cli.source import query_of, read_list, report_age, source_options
from exporter.cli.state import run_in_state, state_of
from exporter.core.text import format_duration, one_line

if TYPE_CHECKING:
    from datetime import datetime

    from exporter.core.mutes import FineTuneSelection, MuteRequest
    from exporter.core.records import MuteRecord
    from exporter.store.database import Database

_Result = TypeVar("_Result")

_LAYOUT: Final = Layout(
    "mutes",
    ("id", "ends", "held", "covers", "by", "reason"),
    uncut=frozenset({"id", "ends", "held"}),
    least={"covers": 16, "by": 6, "reason": 8},
    cut_first="reason",
    wide=("created_at",),
)


@click.group()
def mutes() -> None:
    """Mute fine-tunes for a time, and show and end mutes; the agent may be running.

    A mute holds back the notifications about the fine-tunes that it covers. When it ends, what has
    failed and is still failed is sent as one message; the rest is discarded. Alertmanager receivers
    are not muted: use silences there.
    """


@mutes.command("list")
@source_options
@click.option("--all", "everything", is_flag=True, help="Include the mutes that have ended.")
@limit_option
@output_option
def list_command(limit: int, output: Any, *, everything: bool, **given: Any) -> None:
    """Print the active mutes, newest last."""
    stream = standard_output("list the mutes")
    query = {} if everything else query_of({"active": "true"})
    found = read_list("mutes", query, limit, given)
    now = report_age(found)
    write_records(found.records[::-1], lambda each: _row(each, now), _LAYOUT, output, stream)


def _row(mute: "MuteRecord", now: "datetime") -> Record:
    from exporter.web.times import iso_time, short_time

    if not mute.active:
        ended = mute.ended_at or min(mute.until, now)
        ends = f"ended {short_time(ended, now)}"
    else:
        ends = "recovery" if mute.until_recovered else short_time(mute.until, now)
    return {
        "id": mute.id,
        "ends": ends,
        "held": mute.deliveries,
        "covers": _covered(mute),
        "by": mute.author,
        "reason": mute.reason,
        "created_at": iso_time(mute.created_at),
    }


@mutes.command()
@source_options
@click.option(
    "--match",
    "matchers",
    metavar="KEY=PATTERN",
    multiple=True,
    help="Pattern for account, model_id, language, dataset, name, id or label.NAME, which must "
    "match the whole value, as in the configuration; repeatable, all must match.",
)
@click.option("--account", metavar="NAME", help="With --fine-tune: its account.")
@click.option("--fine-tune", "fine_tune", metavar="ID", help="Mute this fine-tune only.")
@click.option("--for", "seconds", metavar="DURATION", type=Duration(), help="How long, 1m to 30d.")
@click.option(
    "--until-recovered",
    is_flag=True,
    help="With --fine-tune: until it leaves the status in which it is; 30d at most.",
)
@click.option("--reason", metavar="TEXT", default="", help="Why; others see it.")
@click.option("--author", metavar="NAME", help="Who; default: the login name.")
def add(matchers: Sequence[str], seconds: float | None, **given: Any) -> None:
    """Mute fine-tunes: those that match, or one.

    Give --match, or --account and --fine-tune; and --for or --until-recovered.
    """
    from exporter.core.mutes import InvalidMuteError, MuteRequest

    if (seconds is None) != given["until_recovered"]:
        raise click.UsageError("a mute must end: give either --for or --until-recovered")
    author = given["author"]
    if author is not None and given["username"] is not None:
        raise click.UsageError("--author and --username exclude each other: the user is the author")
    request = MuteRequest(
        seconds,
        login_name() if author is None else author,
        given["reason"],
        _match_of(matchers),
        given["account"] or "",
        given["fine_tune"] or "",
    )
    try:
        request.check()
    except InvalidMuteError as error:
        raise click.UsageError(str(error)) from None
    mute, matches = _add_stored(request, given) if given["url"] is None else _add(request, given)
    _report(mute, matches)


def _match_of(matchers: Sequence[str]) -> dict[str, str]:
    match: dict[str, str] = {}
    for each in matchers:
        key, equals, pattern = each.partition("=")
        if not equals:
            raise click.UsageError(f"--match {each}: write KEY=PATTERN, such as dataset=calls")
        if key in match:
            raise click.UsageError(f"--match {key} is given twice; write {key}=(one|other)")
        match[key] = pattern
    return match


def _add_stored(
    request: "MuteRequest", given: Mapping[str, Any]
) -> "tuple[MuteRecord, int | None]":
    """Add a mute to a state; return it, and the number of fine-tunes if that can be known."""
    from exporter.agent.build import SYSTEM_CLOCK, view_settings
    from exporter.core.match import LABEL_PREFIX
    from exporter.core.mutes import InvalidMuteError
    from exporter.store.mutes import add_mute
    from exporter.web.view import View, stored_settings

    refuse_agent_options(given)
    state = state_of(given["config_file"], given["storage_path"])

    def work(database: "Database") -> "tuple[MuteRecord, int | None]":
        mute_id = add_mute(database, request, SYSTEM_CLOCK.now())
        with database.read() as connection:
            config = state.config
            settings = stored_settings(connection) if config is None else view_settings(config)
            now, monotonic = SYSTEM_CLOCK.now(), SYSTEM_CLOCK.monotonic()
            view = View(connection, settings, (), now, monotonic)
            mute = next(each for each in view.mutes if each.id == mute_id)
            if config is None and any(key.startswith(LABEL_PREFIX) for key in mute.match):
                return mute, None
            return mute, view.fine_tunes.count_selected(mute, view.account_labels)

    try:
        return run_in_state(state, "add the mute", work)
    except InvalidMuteError as error:  # too many are active
        fail(RUNTIME_ERROR, f"cannot add the mute: {error}")


def _add(request: "MuteRequest", given: Mapping[str, Any]) -> "tuple[MuteRecord, int | None]":
    """Add a mute with the API of an agent; return it, and the number of fine-tunes."""
    from exporter.web.answers import MuteAnswer
    from exporter.web.mutes import NewMute

    body = NewMute(
        match=dict(request.match),
        account=request.account,
        fine_tune=request.fine_tune,
        duration="" if request.seconds is None else format_duration(request.seconds),
        until_recovered=request.seconds is None,
        reason=request.reason,
        author=request.author,
    )
    answer = _ask(given, lambda api: api.post("/mutes", body, MuteAnswer))
    return answer.mute, answer.matches


def _report(mute: "MuteRecord", matches: int | None) -> None:
    """Print what was muted until when, and how many fine-tunes that are."""
    from exporter.web.times import full_time

    until = "until it recovers, at the latest " if mute.until_recovered else "until "
    click.echo(f"{mute.id}: {_covered(mute)} is muted {until}{full_time(mute.until)}")
    if matches is None:
        text = "the labels of accounts are in the configuration, see --config.file"
        click.echo(f"how many fine-tunes it matches now is not known: {text}", err=True)
    elif matches:
        click.echo(f"{matches} {'fine-tune matches' if matches == 1 else 'fine-tunes match'} now")
    else:
        click.echo("note: no fine-tune matches now; those that will match are muted", err=True)


def _covered(selection: "FineTuneSelection") -> str:
    """Return what a mute covers: its matchers, or the account and the id of its fine-tune."""
    if selection.fine_tune:
        return one_line(f"{selection.account}/{selection.fine_tune}")
    return one_line(", ".join(f"{key}={pattern}" for key, pattern in selection.match.items()))


@mutes.command()
@source_options
@click.argument("mute", metavar="ID")
def end(mute: str, **given: Any) -> None:
    """End mute ID now: what it held and is still failed is sent, the rest is discarded."""
    if given["url"] is None:
        _end_stored(mute, given)
    else:
        from exporter.web.answers import MuteAnswer
        from exporter.web.mutes import MuteEnd

        path, body = f"/mutes/{quote(mute, safe='')}/end", MuteEnd(author=login_name())
        _ask(given, lambda api: api.post(path, body, MuteAnswer))
    click.echo(f"{mute} has ended; what it held and is still failed is sent as one message")


def _end_stored(mute_id: str, given: Mapping[str, Any]) -> None:
    from exporter.agent.build import SYSTEM_CLOCK
    from exporter.store.mutes import UnknownMuteError, end_mute

    refuse_agent_options(given)
    state = state_of(given["config_file"], given["storage_path"])

    def work(database: "Database") -> None:
        end_mute(database, mute_id, login_name(), SYSTEM_CLOCK.now())

    try:
        run_in_state(state, "end the mute", work)
    except UnknownMuteError as error:
        fail(RUNTIME_ERROR, f"{one_line(str(error))}; see `cartesia-exporter mutes list`")


def _ask(given: Mapping[str, Any], ask: Callable[[AgentApi], Awaitable[_Result]]) -> _Result:
    """Return the answer of an agent, or end the process with why there is none."""

    async def run() -> _Result:
        async with open_agent(given) as api:
            return await ask(api)

    try:
        return asyncio.run(run())
    except AgentApiError as error:
        fail(RUNTIME_ERROR, f"{given['url']}: {error}")
