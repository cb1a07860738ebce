"""Durations, loopback hosts and the texts of system errors."""

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.core.text import format_duration, is_loopback, os_error_text, parse_duration


def test_durations_are_read_as_prometheus_reads_them():
    for text, seconds in {
        "500ms": 0.5,
        "30s": 30,
        "5m": 300,
        "1h30m": 5400,
        "2d": 172_800,
        "1w": 604_800,
        "1y": 31_536_000,
        "1y2w3d4h5m6s7ms": 31_536_000 + 2 * 604_800 + 3 * 86_400 + 4 * 3600 + 306.007,
        "0s": 0,
        "0": 0,
        "90m": 5400,
    }.items():
        assert parse_duration(text) == seconds, text


INVALID = ["", " ", "5", "1.5s", "-5s", "5S", "5 m", "30m1h", "5m5m", "5m\n", "five", "\u0665m"]


@pytest.mark.parametrize("text", [*INVALID, "1" * 5000])
def test_a_text_that_prometheus_refuses_is_not_a_duration(text):
    with pytest.raises(ValueError, match="must be a duration such as"):
        parse_duration(text)


@given(st.integers(min_value=0, max_value=10**14))
def test_a_formatted_duration_is_parsed_to_the_same_value(milliseconds):
    seconds = milliseconds / 1000
    assert parse_duration(format_duration(seconds)) == seconds


def test_durations_are_formatted_in_their_largest_units():
    for seconds, text in {0: "0s", 50: "50s", 0.5: "500ms", 5400: "1h30m", 86400: "1d"}.items():
        assert format_duration(seconds) == text


def test_only_this_machine_is_loopback():
    for host in ("localhost", "127.0.0.1", "127.255.255.254", "::1"):
        assert is_loopback(host), host
    for host in ("128.0.0.1", "0.0.0.0", "localhost.example", "127.0.0.1.example", "127.1"):
        assert not is_loopback(host), host


def test_the_text_of_a_system_error_has_no_number_and_no_path():
    for error, text in (
        (
            PermissionError(errno.EACCES, "Permission denied", "/run/secrets/key"),
            "Permission denied",
        ),
        (OSError("a socket closed"), "a socket closed"),
        (TimeoutError(), "TimeoutError"),
    ):
        assert os_error_text(error) == text
