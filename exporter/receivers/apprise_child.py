"""Program that sends one message by the Apprise library, for `exporter.receivers.apprise`.

It reads one line of JSON, a request, and prints one line, the result. The URL comes by the pipe
because arguments and environment are visible to others. The library reads answers without a limit
on their size and cannot be interrupted, so this process has limits of memory and time, and ends
when the agent does.
"""

import json
import os
import resource
import signal
import sys
import warnings
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Any, Final

MEMORY_BYTES: Final = 160 * 1024 * 1024
"""Limit of the address space: 2.3 times what the library takes. A container with 256 MiB has room
for it beside the agent."""


def main() -> None:
    """Read the request, send the message and print the result."""
    sys.stdin.reconfigure(encoding="utf-8")  # type: ignore[union-attr]  # a real file here
    request: dict[str, Any] = json.loads(sys.stdin.readline())
    set_limits(request["seconds"])
    # A plugin may print; only the result may be read as one.
    output = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    Thread(target=end_with_agent, daemon=True).start()
    os.write(output, json.dumps(result_of(request)).encode() + b"\n")
    os._exit(0)  # threads of a plugin, or its cleanup, could hang


def set_limits(seconds: float) -> None:
    """Have the kernel end this process after ``seconds``, and refuse it more memory."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    # Forbidden, or unknown to another system: then the deadline remains.
    for limit, value in (
        (resource.RLIMIT_AS, MEMORY_BYTES),
        (resource.RLIMIT_CORE, 0),  # a core file would have the URL
    ):
        with suppress(OSError, ValueError):
            resource.setrlimit(limit, (value, value))
    with suppress(OSError):
        # Where memory runs out nevertheless, this process is to be killed, not the agent.
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")


def end_with_agent() -> None:
    """End this process when the agent closes the pipe, or is gone."""
    os.read(0, 1)
    os._exit(1)


def result_of(request: dict[str, Any]) -> dict[str, str]:
    """Send the message; return what happened, and the class of an exception."""
    warnings.simplefilter("ignore")  # one names the host of an unverified certificate
    try:
        import apprise  # noqa: PLC0415 - an extra

        asset = _asset()
        service = apprise.Apprise.instantiate(request["url"], asset=asset)
        if service is None:
            return {"result": "unusable"}
        _configure(service, request)
        sent = apprise.Apprise(service, asset=asset).notify(
            request["body"],
            request["title"],
            request["type"],
            body_format=apprise.NotifyFormat.TEXT,
            interpret_escapes=False,
        )
    except Exception as error:  # noqa: BLE001 - a plugin can raise anything; the text may be secret
        return {"result": "error", "error": type(error).__name__}
    return {"result": "sent" if sent else "failed"}


def _configure(service: Any, request: dict[str, Any]) -> None:
    """Make the service try once, with our timeouts, and truncate what is too long for it."""
    from apprise import OverflowMode  # noqa: PLC0415

    service.retry = 0
    service.socket_connect_timeout = min(request["seconds"], request["connect_seconds"])
    service.socket_read_timeout = request["seconds"]
    # By default a message that is too long is refused as a whole, at each attempt.
    if service.overflow_mode is OverflowMode.UPSTREAM:
        service.overflow_mode = OverflowMode.TRUNCATE
    if request["ca_file"] is not None:
        service.verify_certificate = request["ca_file"]  # as `verify` of requests takes it


def _asset() -> Any:
    """Return settings of the library: no further thread, disk, redirects or pictures."""
    import apprise  # noqa: PLC0415

    return apprise.AppriseAsset(
        app_id="cartesia-exporter",
        app_desc="cartesia-exporter",
        app_url="",
        async_mode=False,
        http_redirects=False,
        image_path_mask=False,
        image_url_logo="",
        image_url_mask="",
        service_timeout=0,  # a timeout of the library needs another thread
        storage_mode=apprise.PersistentStoreMode.MEMORY.value,
    )


if __name__ == "__main__":
    main()
