"""Authentication: passwords, the rate limit, added headers, and exempt paths."""

import base64
import re
import socket
import subprocess
from functools import partial
from unittest.mock import patch

import bcrypt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.core.health import Readiness
from exporter.web.application import Application
from exporter.web.auth import TokenBucket, parse_basic_auth
from exporter.web.live_config import RateLimit
from exporter.web.passwords import BusyError, PasswordChecker
from tests.programs import required
from tests.web.application_fixture import sample_status, web_context
from tests.web.authenticated_server import PASSWORD, USER, WebConfigFixture, ask, hash_of

GOOD = (USER, PASSWORD)


@pytest.fixture
def file(tmp_path):
    return WebConfigFixture(
        tmp_path, basic_auth_users={USER: hash_of(PASSWORD), "other": hash_of("x")}
    )


@pytest.fixture
def compared():
    """Hashes that passwords were compared with."""
    hashes: list[bytes] = []
    real = bcrypt.checkpw

    def checkpw(password: bytes, hashed: bytes) -> bool:
        hashes.append(hashed)
        return real(password, hashed)

    with patch.object(bcrypt, "checkpw", checkpw):
        yield hashes


def test_a_valid_password_is_accepted(file):
    with file.served() as [url]:
        answer = ask(f"{url}/metrics", auth=GOOD)
        assert (answer.status_code, answer.text) == (200, "/metrics trusted=True http")


def test_other_credentials_are_refused(file):
    wrong = [None, (USER, "wrong"), (USER, ""), (USER, f"{PASSWORD}x"), (USER, "x" * 73)]
    unknown = [("nobody", PASSWORD), ("other", PASSWORD), ("", "")]
    with file.served() as [url]:
        for auth in (*wrong, *unknown):
            answer = ask(f"{url}/metrics", auth=auth)
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"] == "Basic"
            assert answer.text == "Unauthorized\n"


METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH", "M-SEARCH")
TARGETS = (
    *("/", "/metrics", "//metrics", "/metrics/", "/%6detrics", "/none", "/-/reload", "/config"),
    *("/-/healthy/", "//-/healthy", "/-/healthy/metrics", "/-/Healthy", "/%252d/healthy"),
    *("/-/healthy/../metrics", "/-/healthy/%2e%2e/metrics", "/-/healthy/..%2f..%2fmetrics"),
    *("/-/healthy;/metrics", "/-/healthy%00/metrics", "/-/healthy%3f", "/-/healthy#/metrics"),
    *("/metrics?/-/healthy", "/metrics#/-/healthy", "http://a/metrics", "http://a/-/healthy", "*"),
)
CLOSE = b"Connection: close\r\n"


def send_raw(url: str, sent: bytes) -> bytes:
    """Send requests on one connection, the last with ``Connection: close``; return the answer."""
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as client:
        client.sendall(sent)
        return b"".join(iter(partial(client.recv, 65536), b""))


def test_no_spelling_of_a_request_bypasses_the_password(file):
    with file.served() as [url]:
        request_lines = [f"{m} /metrics HTTP/1.1" for m in METHODS]
        request_lines += [f"GET {t} HTTP/1.{minor}" for t in TARGETS for minor in (0, 1)]
        for line in request_lines:
            answer = send_raw(url, line.encode() + b"\r\nHost: a\r\n" + CLOSE + b"\r\n")
            assert answer.startswith(b"HTTP/1.1 401 "), line
            assert b"trusted" not in answer, line


def test_each_request_of_a_connection_needs_the_password(file):
    """An exempt path or a valid password does not authenticate the next request."""
    right = b"Authorization: Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()) + b"\r\n"
    asked = [(b"/-/healthy", b""), (b"/metrics", b""), (b"/metrics", right), (b"/metrics", CLOSE)]
    sent = [b"GET %s HTTP/1.1\r\nHost: a\r\n%s\r\n" % each for each in asked]
    with file.served() as [url]:
        found = send_raw(url, b"".join(sent))
    assert re.findall(rb"HTTP/1.1 (\d+) ", found) == [b"200", b"401", b"200", b"401"]


def test_malformed_authorization_headers_are_refused(file):
    odd = [b"", b"Basic", b"Basic ****", b"Basic YQ==", b"Basic \xff\xfe", b"Bearer eDp5"]
    with file.served() as [url]:
        for header in (*odd, b"Basic /////w==", b"Basic " + base64.b64encode(b"\xff:\x00")):
            assert ask(url, headers={b"Authorization": header}).status_code == 401


def test_the_scheme_is_case_insensitive_and_curl_is_accepted(file):
    encoded = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    curl = required("curl", package="curl")
    with file.served() as [url]:
        assert ask(url, headers={"Authorization": f"bAsIC {encoded}"}).status_code == 200
        command = [curl, "-sS", "--noproxy", "*", "-u", f"{USER}:{PASSWORD}", url]
        done = subprocess.run(command, capture_output=True, timeout=30, check=True)
        assert done.stdout == b"/ trusted=True http"


def test_all_72_bytes_of_a_password_count_and_longer_ones_are_refused(tmp_path):
    """Some bcrypt libraries ignore what follows 72 bytes, others raise an error."""
    longest = "x" * 72
    file = WebConfigFixture(tmp_path, basic_auth_users={"a": hash_of(longest)})
    with file.served() as [url]:
        assert ask(url, auth=("a", longest)).status_code == 200
        assert ask(url, auth=("a", f"{longest}y")).status_code == 401
        assert ask(url, auth=("a", longest[:-1])).status_code == 401


def test_an_unknown_user_costs_as_much_as_a_wrong_password(tmp_path, compared):
    file = WebConfigFixture(tmp_path, basic_auth_users={"a": hash_of("x", 5), "b": hash_of("x", 4)})
    with file.served() as [url]:
        for user in ("a", "nobody", "nobody"):
            assert ask(url, auth=(user, "wrong")).status_code == 401
    known, unknown, again = compared
    assert [each.split(b"$")[2] for each in compared] == [b"05"] * 3
    assert unknown == again != known


def test_the_password_of_the_dummy_hash_is_refused(tmp_path):
    """It stands in the source of exporter-toolkit, with cost 10."""
    file = WebConfigFixture(tmp_path, basic_auth_users={USER: hash_of(PASSWORD, 10)})
    with file.served() as [url]:
        for _ in range(2):
            assert ask(url, auth=("nobody", "fakepassword")).status_code == 401


def test_only_a_valid_password_is_cached(file, compared):
    with file.served() as [url]:
        for _ in range(3):
            assert ask(url, auth=GOOD).status_code == 200
        assert len(compared) == 1
        for _ in range(3):
            assert ask(url, auth=(USER, "wrong")).status_code == 401
        assert len(compared) == 4


@pytest.mark.parametrize("listeners", [1, 2])
def test_the_rate_limit_is_for_all_listeners_and_precedes_the_password(
    tmp_path, compared, listeners
):
    users = {USER: hash_of(PASSWORD)}
    limit = {"interval": "1h", "burst": 2}
    file = WebConfigFixture(tmp_path, basic_auth_users=users, rate_limit=limit)
    with file.served(listeners=listeners) as urls:
        found = [ask(urls[n % listeners], auth=(USER, "wrong")).status_code for n in range(4)]
        assert found == [401, 401, 429, 429]
        assert len(compared) == 2
        assert ask(urls[0], auth=GOOD).text == "Too Many Requests\n"


@pytest.mark.parametrize("path", ["/-/healthy", "/-/ready"])
def test_health_needs_no_password_and_is_not_limited(tmp_path, path):
    file = WebConfigFixture(
        tmp_path,
        basic_auth_users={USER: hash_of(PASSWORD)},
        rate_limit={"interval": "1h", "burst": 1},
    )
    with file.served() as [url]:
        for _ in range(3):
            assert ask(url + path).text == f"{path} trusted=False http"
        assert ask(url, auth=GOOD).status_code == 200


@pytest.mark.parametrize("path", ["/-/healthy", "/-/ready"])
def test_only_a_valid_password_gives_details_of_health(file, path):
    with file.served() as [url]:
        assert ask(url + path, auth=GOOD).text == f"{path} trusted=True http"
        assert ask(url + path, auth=(USER, "wrong")).text == f"{path} trusted=False http"


def test_passwords_at_health_paths_count_for_the_rate_limit(tmp_path, compared):
    file = WebConfigFixture(
        tmp_path,
        basic_auth_users={USER: hash_of(PASSWORD)},
        rate_limit={"interval": "1h", "burst": 2},
    )
    with file.served() as [url]:
        for _ in range(4):
            assert ask(f"{url}/-/ready", auth=(USER, "wrong")).status_code == 200
        assert len(compared) == 2
        assert "trusted=False" in ask(f"{url}/-/ready", auth=GOOD).text


def test_a_request_is_503_when_too_many_passwords_wait(file, monkeypatch):
    async def check(*_):
        raise BusyError

    monkeypatch.setattr(PasswordChecker, "check", check)
    with file.served() as [url]:
        answer = ask(url, auth=GOOD)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert ask(f"{url}/-/ready", auth=GOOD).text == "/-/ready trusted=False http"


def test_without_users_every_client_sees_details(tmp_path):
    with WebConfigFixture(tmp_path).served() as [url]:
        for path in ("/", "/-/ready"):
            assert ask(url + path).text == f"{path} trusted=True http"


def test_ready_gives_details_only_with_a_password(file):
    broken = sample_status(account="acme", up=False, failure="unauthorized")
    readiness = Readiness(1, 2, "no room in /var/lib")
    app = Application(web_context(broken, sample_status(), readiness=readiness))
    with file.served(app) as [url]:
        answer = ask(f"{url}/-/ready")
        assert answer.status_code == 503
        summary = "cartesia-exporter is not ready: 1 of 2 accounts have a fresh snapshot"
        assert answer.text == f"{summary}.\n"
        assert ask(f"{url}/-/ready", auth=GOOD).text == (
            f"{summary}; the state cannot be stored: no room in /var/lib.\n"
            "acme: failed: unauthorized\n"
        )


def test_headers_are_on_every_response(tmp_path):
    headers = {
        "Content-Security-Policy": "frame-ancestors 'none'",
        "X-Frame-Options": "sameorigin",
        "X-Content-Type-Options": "nosniff",
        "X-XSS-Protection": "1; mode=block",
        "Strict-Transport-Security": "max-age=31536000",
    }
    file = WebConfigFixture(
        tmp_path,
        http_server_config={"headers": headers},
        basic_auth_users={USER: hash_of(PASSWORD)},
        rate_limit={"interval": "1h", "burst": 2},
    )
    with file.served() as [url]:
        answers = [ask(url, auth=GOOD), ask(url), ask(url), ask(f"{url}/-/healthy")]
    assert [answer.status_code for answer in answers] == [200, 401, 429, 200]
    for answer in answers:
        policies = answer.headers.get_list("content-security-policy")
        assert "frame-ancestors 'none'" in policies
        # Browsers apply both policies. Other headers must not be repeated.
        assert ("default-src 'none'" in policies) == (answer.status_code == 200)
        assert answer.headers.get_list("x-frame-options") == ["sameorigin"]
        for name in set(headers) - {"Content-Security-Policy"}:
            assert answer.headers[name] == headers[name]


@given(st.binary())
def test_any_authorization_header_is_parsed_without_an_error(header):
    found = parse_basic_auth(b"Basic " + header)
    assert found is None or len(found) == 2
    assert parse_basic_auth(header) is None or header[:5].lower() == b"basic"


def test_the_rate_limit_allows_a_burst_and_then_one_request_per_interval():
    bucket = TokenBucket(RateLimit(2.0, 3))
    assert [bucket.take(10.0) for _ in range(4)] == [True, True, True, False]
    assert not bucket.take(11.9)
    assert bucket.take(12.0)
    assert not bucket.take(12.1)


def test_a_long_pause_refills_no_more_than_the_burst():
    bucket = TokenBucket(RateLimit(1.0, 2))
    assert [bucket.take(0.0) for _ in range(3)] == [True, True, False]
    assert [bucket.take(1e6) for _ in range(3)] == [True, True, False]


@given(
    st.lists(st.floats(0, 5), max_size=50),
    st.floats(0.125, 10),
    st.integers(1, 5),
)
def test_no_period_exceeds_the_burst_and_one_request_per_interval(waits, interval, burst):
    bucket, now, allowed = TokenBucket(RateLimit(interval, burst)), 0.0, []
    for wait in waits:
        now += wait
        if bucket.take(now):
            allowed.append(now)
    for first, start in enumerate(allowed):
        for last, end in enumerate(allowed[first:], first):
            assert last - first + 1 <= burst + (end - start) / interval + 1e-6
