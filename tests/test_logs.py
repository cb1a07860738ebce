"""Logging: one line per event for any content, no secrets, also for libraries."""

import json
import logging
import re
import sys
import threading
import warnings

import pytest
import structlog

from exporter import logs
from tests.process.agent_process import run

HOSTILE = (
    "a\nlevel=error msg=forged",
    "a\r\x1b[2J\x07\x00\u2028\u2029\x85b",
    '" msg="forged',
    "\\",
    "\u202eesrever",
    "\udc80",
    "a=b c",
    "",
    "\t",
)


@pytest.fixture(autouse=True)
def restored_logging():
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    hooks = sys.unraisablehook, threading.excepthook
    configured = structlog.get_config()
    yield
    sys.unraisablehook, threading.excepthook = hooks
    root.handlers = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)
    structlog.configure(**configured)


def fail(text: str) -> None:
    raise ValueError(text)


def logged_text(capfd) -> str:
    logs.flush()
    return str(capfd.readouterr().err)


def logged_lines(capfd) -> list[str]:
    return logged_text(capfd).removesuffix("\n").split("\n")


@pytest.mark.parametrize("style", ["logfmt", "json"])
def test_an_event_is_one_line_without_control_characters(capfd, style):
    logs.set_up("info", style)
    for text in HOSTILE:
        structlog.get_logger().info("read", name=text, error=ValueError(text))
        logging.getLogger("library").warning("about %s", text)
        found = logged_lines(capfd)
        assert len(found) == 2, text
        assert not re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202e]", "".join(found)), text


def test_json_events_have_typed_values(capfd):
    logs.set_up("info", "json")
    structlog.get_logger().warning("poll failed", reason="connect", seconds=1.5, up=False)
    [event] = map(json.loads, logged_lines(capfd))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", event.pop("time"))
    assert event == {
        "level": "warning",
        "msg": "poll failed",
        "reason": "connect",
        "seconds": 1.5,
        "up": False,
    }


def test_logfmt_starts_with_time_level_and_message(capfd):
    logs.set_up("info", "logfmt")
    structlog.get_logger().info("poll failed", reason="a b", up=True, none=None)
    [line] = logged_lines(capfd)
    assert re.fullmatch(r'time=\S+Z level=info msg="poll failed" reason="a b" up=true none=', line)


SECRETS = (
    "sk_car_abc.DEF-123_x",
    "whsec_aGVsbG8+/w==",
    "https://hooks.slack.com/services/T0/B0/xyz",
    "https://hooks.slack-gov.com/services/T0/B0/xyz",
    "Bearer abc.def",
)


@pytest.mark.parametrize("style", ["logfmt", "json"])
def test_text_that_looks_like_a_secret_is_replaced_everywhere(capfd, style):
    logs.set_up("debug", style)
    for secret in SECRETS:
        structlog.get_logger().info(f"said {secret}", value=secret, error=ValueError(secret))
        logging.getLogger("library").error("about %s", secret)
        try:
            fail(secret)
        except ValueError:
            structlog.get_logger().exception("broken")
        text = logged_text(capfd)
        assert secret.removeprefix("https://").removeprefix("Bearer ") not in text, secret
        assert text.count("<secret>") == 5, secret


def test_events_below_the_level_are_dropped(capfd):
    logs.set_up("warning", "logfmt")
    for level in ("debug", "info", "warning", "error"):
        getattr(structlog.get_logger(), level)("said")
        getattr(logging.getLogger("library"), level)("said")
    assert [line.split()[1] for line in logged_lines(capfd)] == [
        *("level=warning", "level=warning", "level=error", "level=error")
    ]


def test_libraries_log_from_warning_on(capfd):
    logs.set_up("debug", "logfmt")
    for library in ("uvicorn.error", "asyncio", "sqlalchemy.engine"):
        logging.getLogger(library).info("chatter")
    assert logged_lines(capfd) == [""]


def test_libraries_and_warnings_use_the_same_format(capfd):
    logs.set_up("info", "json")
    logging.getLogger("uvicorn.error").error("refused %s", "x")
    logging.getLogger("asyncio").error("never retrieved")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=True)
        warnings.warn("old", DeprecationWarning, stacklevel=1)
        logging.captureWarnings(capture=False)
    assert [json.loads(line)["level"] for line in logged_lines(capfd)] == [
        "error",
        "error",
        "warning",
    ]


def test_a_traceback_is_indented_so_that_it_cannot_forge_events(capfd):
    logs.set_up("info", "logfmt")
    try:
        fail("a\ntime=0 level=info msg=forged")
    except ValueError:
        structlog.get_logger().exception("broken")
        logging.getLogger("asyncio").exception("broken too")
    found = logged_lines(capfd)
    events = [line for line in found if not line.startswith("    ")]
    assert [line.rsplit("msg=", 1)[1] for line in events] == ["broken", '"broken too"']
    assert "    Traceback (most recent call last):" in found


def test_a_traceback_in_json_is_a_value(capfd):
    logs.set_up("info", "json")
    try:
        fail("a\nb")
    except ValueError:
        structlog.get_logger().exception("broken")
    [event] = map(json.loads, logged_lines(capfd))
    assert "Traceback (most recent call last):\n" in event["exception"]


def test_a_long_value_is_cut_and_does_not_show_half_a_secret(capfd):
    logs.set_up("info", "logfmt")
    secret = "sk_car_" + "s" * 100
    for position in (8_100, 30_000 - 8_250):
        text = "a" * position + f" {secret} " + "b" * (30_000 - position)
        structlog.get_logger().info("read", text=text)
        [line] = logged_lines(capfd)
        assert "ss" not in line
        assert 16_384 < len(line) < 17_000
        assert line.rstrip('"').endswith("b")


class Unprintable:
    def __str__(self) -> str:
        raise ValueError("the bug")


def test_an_event_that_cannot_be_formatted_is_reported_and_nothing_is_printed(capfd):
    logs.set_up("info", "json")
    logging.getLogger("library").warning("about %s", Unprintable())
    logging.getLogger("library").warning("about %s", "x", "y")  # noqa: PLE1205
    found = [json.loads(line) for line in logged_lines(capfd)]
    assert [(each["logger"], each["error"]) for each in found] == [
        ("library", "ValueError"),
        ("library", "TypeError"),
    ]


def test_exceptions_that_python_would_print_are_logged(capfd):
    logs.set_up("info", "json")

    class FailsWhenDeleted:
        def __del__(self) -> None:
            fail("deleted")

    FailsWhenDeleted()
    thread = threading.Thread(target=fail, args=("in a thread",))
    thread.start()
    thread.join()
    found = [json.loads(line) for line in logged_lines(capfd)]
    assert [each["level"] for each in found] == ["error", "error"]
    assert "ValueError: deleted" in found[0]["exception"]
    assert "ValueError: in a thread" in found[1]["exception"]


def test_log_flags_are_applied(tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text("accounts: [{api_key: x}]\nstorage: {path: /dev/null/state.db}\n", "utf-8")
    done = run(tmp_path, f"--config.file={config}", "--log.format=json", "--log.level=error")
    [event] = map(json.loads, done.stderr.splitlines())
    assert (done.returncode, event["level"], event["msg"]) == (2, "error", "cannot start")
