"""Named points on the way from a poll to a settled delivery at which a process kills itself.

The agent's own code runs up to the point, in its own process; `sitecustomize` puts the point there.
"""

from pathlib import Path

_POLL = ("exporter.store.accounts", "Accounts.commit")
_FREEZE = ("exporter.store.outbox", "Outbox.freeze")
_CLAIM = ("exporter.store.outbox", "Outbox.claim")
_RECORD = ("exporter.store.outbox", "Outbox.record")
_SENDING = ("exporter.http_client", "_Progress.trace")

# Where, before or after what stands there, and only if this is so of its arguments.
_POINTS = {
    "before the poll commits": (*_POLL, "before", "arguments[1].events"),
    "when the poll has committed": (*_POLL, "after", "arguments[1].events"),
    "when the messages are frozen": (*_FREEZE, "after", "True"),
    "before the claim": (*_CLAIM, "before", "True"),
    "when it is claimed": (*_CLAIM, "after", "True"),
    "before the bytes go out": (*_SENDING, "before", "post('send_request_headers.started')"),
    "when half the bytes are out": (*_SENDING, "before", "post('send_request_body.started')"),
    "before an answer": (*_SENDING, "before", "post('receive_response_headers.started')"),
    "when it is answered": (*_SENDING, "before", "post('receive_response_body.complete')"),
    "before the result is recorded": (*_RECORD, "before", "True"),
    "when the result is recorded": (*_RECORD, "after", "True"),
}

# Of the trace, only the steps of a POST: the API's requests are told by the same function. Which
# request a step is of is told with its beginning only.
_DYING = """
import functools, os, signal
import {module} as module

posting = False

def kill():
    os.kill(os.getpid(), signal.SIGKILL)

def met(arguments):
    def post(step):
        global posting
        if arguments[1].endswith("send_request_headers.started"):
            posting = arguments[2]["request"].method == b"POST"
        return posting and arguments[1].endswith(step)

    return {condition}

owner, name = module.{owner}, "{name}"
real = getattr(owner, name)

@functools.wraps(real)
async def dying(*arguments):
    now = met(arguments)
    if now and "{when}" == "before":
        kill()
    result = await real(*arguments)
    if now:
        kill()
    return result

setattr(owner, name, dying)
"""


def dying(folder: Path, point: str) -> dict[str, str]:
    """Return the variables with which a process is killed (SIGKILL) once it gets to `point`."""
    module, function, when, condition = _POINTS[point]
    owner, name = function.split(".")
    code = _DYING.format(module=module, owner=owner, name=name, when=when, condition=condition)
    injected = folder / "injected"
    injected.mkdir(exist_ok=True)
    (injected / "sitecustomize.py").write_text(code, encoding="utf-8")
    return {"PYTHONPATH": str(injected)}
