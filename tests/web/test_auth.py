"""What stands before the pages: passwords, the rate limit, headers, and who is let past them."""

import base64
import re
import socket
import subprocess
from functools import partial
from unittest.mock import patch

import bcrypt
import pytest

from exporter.core.health import Readiness
from exporter.web.application import application
from exporter.web.auth import BusyError, Passwords
from tests.programs import required
from tests.web.authenticated_server import PASSWORD, USER, File, ask, hash_of
from tests.web.test_application import shown, view

GOOD = (USER, PASSWORD)


@pytest.fixture
def file(tmp_path):
    return File(tmp_path, basic_auth_users={USER: hash_of(PASSWORD), "other": hash_of("x")})


@pytest.fixture
def compared():
    """The hashes that passwords were compared with."""
    seen: list[bytes] = []
    real = bcrypt.checkpw

    def checkpw(password: bytes, hashed: bytes) -> bool:
        seen.append(hashed)
        return real(password, hashed)

    with patch.object(bcrypt, "checkpw", checkpw):
        yield seen


def test_a_user_with_the_password_is_let_in(file):
    with file.served() as [url]:
        answer = ask(f"{url}/metrics", auth=GOOD)
        assert (answer.status_code, answer.text) == (200, "/metrics trusted=True http")


def test_anybody_else_is_not(file):
    wrong = [None, (USER, "wrong"), (USER, ""), (USER, f"{PASSWORD}x"), (USER, "x" * 73)]
    nobody = [("nobody", PASSWORD), ("other", PASSWORD), ("", "")]
    with file.served() as [url]:
        for auth in (*wrong, *nobody):
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


def exchanged(url: str, sent: bytes) -> bytes:
    """What comes back on one connection for requests of which the last asks to close it."""
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as client:
        client.sendall(sent)
        return b"".join(iter(partial(client.recv, 65536), b""))


def test_no_spelling_of_a_request_gets_past_the_password(file):
    with file.served() as [url]:
        lines = [f"{m} /metrics HTTP/1.1" for m in METHODS]
        lines += [f"GET {t} HTTP/1.{minor}" for t in TARGETS for minor in (0, 1)]
        for line in lines:
            answer = exchanged(url, line.encode() + b"\r\nHost: a\r\n" + CLOSE + b"\r\n")
            assert answer.startswith(b"HTTP/1.1 401 "), line
            assert b"trusted" not in answer, line


def test_each_request_of_a_connection_needs_the_password(file):
    """A page of health, or a password that was right, opens nothing for what comes behind it."""
    right = b"Authorization: Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()) + b"\r\n"
    asked = [(b"/-/healthy", b""), (b"/metrics", b""), (b"/metrics", right), (b"/metrics", CLOSE)]
    sent = [b"GET %s HTTP/1.1\r\nHost: a\r\n%s\r\n" % each for each in asked]
    with file.served() as [url]:
        found = exchanged(url, b"".join(sent))
    assert re.findall(rb"HTTP/1.1 (\d+) ", found) == [b"200", b"401", b"200", b"401"]


def test_what_is_no_password_is_a_wrong_one(file):
    odd = [b"", b"Basic", b"Basic ****", b"Basic YQ==", b"Basic \xff\xfe", b"Bearer eDp5"]
    with file.served() as [url]:
        for header in (*odd, b"Basic /////w==", b"Basic " + base64.b64encode(b"\xff:\x00")):
            assert ask(url, headers={b"Authorization": header}).status_code == 401


def test_the_word_basic_is_read_in_any_case_and_curl_is_understood(file):
    encoded = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    curl = required("curl", package="curl")
    with file.served() as [url]:
        assert ask(url, headers={"Authorization": f"bAsIC {encoded}"}).status_code == 200
        command = [curl, "-sS", "--noproxy", "*", "-u", f"{USER}:{PASSWORD}", url]
        done = subprocess.run(command, capture_output=True, timeout=30, check=True)
        assert done.stdout == b"/ trusted=True http"


def test_a_password_of_72_bytes_is_used_whole_and_a_longer_one_is_wrong(tmp_path):
    """Some bcrypt libraries cut it, so that anything may follow; others raise."""
    longest = "x" * 72
    file = File(tmp_path, basic_auth_users={"a": hash_of(longest)})
    with file.served() as [url]:
        assert ask(url, auth=("a", longest)).status_code == 200
        assert ask(url, auth=("a", f"{longest}y")).status_code == 401
        assert ask(url, auth=("a", longest[:-1])).status_code == 401


def test_a_user_whom_nobody_knows_costs_as_much_as_one_with_a_wrong_password(tmp_path, compared):
    file = File(tmp_path, basic_auth_users={"a": hash_of("x", 5), "b": hash_of("x", 4)})
    with file.served() as [url]:
        for user in ("a", "nobody", "nobody"):
            assert ask(url, auth=(user, "wrong")).status_code == 401
    known, unknown, again = compared
    assert [each.split(b"$")[2] for each in compared] == [b"05"] * 3
    assert unknown == again != known


def test_the_password_of_the_dummy_hash_opens_nothing_however_often_it_is_tried(tmp_path):
    """It is one that exporter-toolkit has in its source, of cost 10."""
    file = File(tmp_path, basic_auth_users={USER: hash_of(PASSWORD, 10)})
    with file.served() as [url]:
        for _ in range(2):
            assert ask(url, auth=("nobody", "fakepassword")).status_code == 401


def test_a_right_password_is_compared_once_and_a_wrong_one_each_time(file, compared):
    with file.served() as [url]:
        for _ in range(3):
            assert ask(url, auth=GOOD).status_code == 200
        assert len(compared) == 1
        for _ in range(3):
            assert ask(url, auth=(USER, "wrong")).status_code == 401
        assert len(compared) == 4


@pytest.mark.parametrize("listeners", [1, 2])
def test_one_limit_for_all_listeners_and_it_comes_before_the_password(
    tmp_path, compared, listeners
):
    users = {USER: hash_of(PASSWORD)}
    limit = {"interval": "1h", "burst": 2}
    file = File(tmp_path, basic_auth_users=users, rate_limit=limit)
    with file.served(listeners=listeners) as urls:
        found = [ask(urls[n % listeners], auth=(USER, "wrong")).status_code for n in range(4)]
        assert found == [401, 401, 429, 429]
        assert len(compared) == 2
        assert ask(urls[0], auth=GOOD).text == "Too Many Requests\n"


@pytest.mark.parametrize("path", ["/-/healthy", "/-/ready"])
def test_health_needs_no_password_and_no_token_of_the_limit(tmp_path, path):
    file = File(
        tmp_path,
        basic_auth_users={USER: hash_of(PASSWORD)},
        rate_limit={"interval": "1h", "burst": 1},
    )
    with file.served() as [url]:
        for _ in range(3):
            assert ask(url + path).text == f"{path} trusted=False http"
        assert ask(url, auth=GOOD).status_code == 200


@pytest.mark.parametrize("path", ["/-/healthy", "/-/ready"])
def test_a_right_password_gets_details_of_health_and_a_wrong_one_the_same_as_none(file, path):
    with file.served() as [url]:
        assert ask(url + path, auth=GOOD).text == f"{path} trusted=True http"
        assert ask(url + path, auth=(USER, "wrong")).text == f"{path} trusted=False http"


def test_passwords_cannot_be_guessed_at_the_health_pages_beyond_the_limit(tmp_path, compared):
    file = File(
        tmp_path,
        basic_auth_users={USER: hash_of(PASSWORD)},
        rate_limit={"interval": "1h", "burst": 2},
    )
    with file.served() as [url]:
        for _ in range(4):
            assert ask(f"{url}/-/ready", auth=(USER, "wrong")).status_code == 200
        assert len(compared) == 2
        assert "trusted=False" in ask(f"{url}/-/ready", auth=GOOD).text


def test_who_would_wait_too_long_for_bcrypt_is_sent_away(file, monkeypatch):
    async def accept(*_):
        raise BusyError

    monkeypatch.setattr(Passwords, "accept", accept)
    with file.served() as [url]:
        answer = ask(url, auth=GOOD)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert ask(f"{url}/-/ready", auth=GOOD).text == "/-/ready trusted=False http"


def test_without_users_everybody_is_trusted(tmp_path):
    with File(tmp_path).served() as [url]:
        for path in ("/", "/-/ready"):
            assert ask(url + path).text == f"{path} trusted=True http"


def test_ready_names_accounts_and_reasons_to_those_with_a_password(file):
    broken = view(account="acme", up=False, failure="unauthorized")
    app = application(shown(broken, view(), readiness=Readiness(1, 2, "no room in /var/lib")))
    with file.served(app) as [url]:
        told = ask(f"{url}/-/ready")
        assert told.status_code == 503
        word = "cartesia-exporter is not ready: 1 of 2 accounts have a fresh snapshot"
        assert told.text == f"{word}.\n"
        assert ask(f"{url}/-/ready", auth=GOOD).text == (
            f"{word}; the state cannot be stored: no room in /var/lib.\n"
            "acme: failed: unauthorized\n"
        )


def test_the_headers_are_on_every_answer(tmp_path):
    headers = {
        "Content-Security-Policy": "frame-ancestors 'none'",
        "X-Frame-Options": "sameorigin",
        "X-Content-Type-Options": "nosniff",
        "X-XSS-Protection": "1; mode=block",
        "Strict-Transport-Security": "max-age=31536000",
    }
    file = File(
        tmp_path,
        http_server_config={"headers": headers},
        basic_auth_users={USER: hash_of(PASSWORD)},
        rate_limit={"interval": "1h", "burst": 2},
    )
    with file.served() as [url]:
        asked = [ask(url, auth=GOOD), ask(url), ask(url), ask(f"{url}/-/healthy")]
    assert [answer.status_code for answer in asked] == [200, 401, 429, 200]
    for answer in asked:
        policies = answer.headers.get_list("content-security-policy")
        assert "frame-ancestors 'none'" in policies
        # Both are in force; the other headers cannot be there twice.
        assert ("default-src 'none'" in policies) == (answer.status_code == 200)
        assert answer.headers.get_list("x-frame-options") == ["sameorigin"]
        for name in set(headers) - {"Content-Security-Policy"}:
            assert answer.headers[name] == headers[name]
