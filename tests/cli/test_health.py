"""`health`: 0 for a healthy agent, 1 and one line for anything else, and never for long."""

import threading
import time

import pytest
from click.testing import CliRunner

from exporter.cli import health
from exporter.cli.main import main
from tests.fakes.answers import (
    answer,
    chunked,
    drips,
    head,
    redirect,
    sends,
    sends_then_hangs_up,
    sends_then_resets,
    silence,
    zeros,
)
from tests.fakes.certificates import authority, server_context
from tests.fakes.server import Server
from tests.process.agent_process import run

CIRCUIT_CLOSED = b"cartesia-exporter is healthy: 5 of 5 parts are on time.\n"
ILL = b"cartesia-exporter is not healthy: 4 of 5 parts are on time.\ndeliver ops: 75 s late\n"


def asked(url, *flags, **env):
    return CliRunner(env=env).invoke(main, ["health", f"--url={url}/-/healthy", *flags])


def fails(server, *flags) -> str:
    """Ask in vain; return the one line that says why, without the URL."""
    done = asked(server.base_url, *flags)
    said: str = done.stderr
    assert (done.exit_code, done.stdout) == (1, "")
    beginning = f"cartesia-exporter: {server.base_url}/-/healthy: "
    assert said.startswith(beginning)
    assert said.count("\n") == 1
    return said.removeprefix(beginning).rstrip("\n")


def test_a_healthy_agent_is_0_and_its_word():
    with Server(answer(200, CIRCUIT_CLOSED)) as server:
        done = asked(server.base_url)
        assert (done.exit_code, done.stdout, done.stderr) == (0, CIRCUIT_CLOSED.decode(), "")
        [request] = server.requests
        assert (request.method, request.target) == ("GET", "/-/healthy")
        assert request.headers["user-agent"].startswith("cartesia-exporter/")


def test_an_agent_that_is_not_healthy_is_1_and_its_words_in_one_line():
    with Server(answer(503, ILL)) as server:
        assert fails(server) == f"answered 503: {' '.join(ILL.decode().split())}"


@pytest.mark.parametrize("status", [204, 301, 401, 404, 500])
def test_any_other_status_is_1(status):
    with Server(answer(status)) as server:
        assert fails(server) == f"answered {status}: nothing more"


def test_a_redirect_is_not_followed():
    with Server(answer(200, CIRCUIT_CLOSED)) as other, Server(redirect(other.base_url)) as server:
        assert fails(server).startswith("answered 307")
        assert other.requests == []


def test_what_it_shows_is_clean_and_short():
    hostile = b"\x1b[31mnot\x07 healthy\r\n\x9b\xff\xe2\x80\xae " + b"x" * 5000
    with Server(answer(503, hostile)) as server:
        line = fails(server)
        assert line.startswith("answered 503: [31mnot healthy ")
        assert line.isprintable()
        assert len(line) < 330


def test_it_reads_a_little_of_an_answer_without_end():
    with Server(chunked(zeros(10_000))) as server:
        began = time.monotonic()
        assert asked(server.base_url).exit_code == 0
        assert time.monotonic() - began < 4
        assert server.bytes_sent < 64 * 2**20


@pytest.mark.parametrize(
    "script", [silence, drips(head(200, content_length=99)), drips(b"HTTP/1.1 200 O", b"K")]
)
def test_a_server_that_is_slow_is_left_by_the_clock_on_the_wall(monkeypatch, script):
    monkeypatch.setattr(health, "_TIMEOUT_SECONDS", 0.5)
    with Server(script) as server:
        began = time.monotonic()
        assert fails(server) == "no complete answer within 0 s"
        assert time.monotonic() - began < 3


def test_a_name_that_hangs_is_left_by_the_clock_too(monkeypatch):
    import socket

    answered = threading.Event()
    monkeypatch.setattr(health, "_TIMEOUT_SECONDS", 0.3)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answered.wait(30))
    began = time.monotonic()
    assert "no complete answer" in asked("http://agent.example").stderr
    assert time.monotonic() - began < 10
    answered.set()


def test_where_nobody_listens_that_is_said():
    with Server(silence) as server:
        url = server.base_url
    done = asked(url)
    assert done.exit_code == 1
    assert done.stderr == (
        f"cartesia-exporter: {url}/-/healthy: no connection: Connection refused\n"
    )


def test_a_name_that_nobody_can_have_is_said():
    done = asked("http://agent..example")
    assert done.exit_code == 1
    assert done.stderr.endswith("no connection: the host's name cannot be looked up\n")


@pytest.mark.parametrize(
    ("script", "why"),
    [
        (sends_then_hangs_up(), "no connection: it was closed"),
        (sends_then_resets(b"HTTP/1.1"), "no connection: Connection reset by peer"),
        (sends_then_hangs_up(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"), "the answer is no HTTP"),
        (sends(b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 1000 + b"\r\n"), "the answer is no HTTP"),
    ],
)
def test_an_answer_that_is_none_is_1(script, why):
    with Server(script) as server:
        assert why in fails(server)


def test_a_certificate_is_verified_against_the_file(tmp_path):
    issuer, ca_file = authority(tmp_path)
    with Server(answer(200, CIRCUIT_CLOSED), server_context(issuer, "127.0.0.1")) as server:
        done = asked(server.base_url, f"--ca-file={ca_file}")
        assert (done.exit_code, done.stdout) == (0, CIRCUIT_CLOSED.decode())
        assert "the certificate is not trusted: " in fails(server)
        assert len(server.requests) == 1


def test_on_loopback_a_certificate_for_another_name_can_be_taken(tmp_path):
    issuer, ca_file = authority(tmp_path)
    with Server(answer(503, ILL), server_context(issuer, "agent.example")) as server:
        assert "the certificate is not trusted: " in fails(server, f"--ca-file={ca_file}")
        assert fails(server, "--insecure").startswith("answered 503")


def test_a_server_without_tls_is_no_tls():
    with Server(silence) as server:
        server.greeting = b"HTTP/1.1 400 Bad Request\r\n\r\n"
        done = asked(server.base_url.replace("http:", "https:"))
        assert done.exit_code == 1
        assert "no TLS connection" in done.stderr


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "127.9.9.9"])
def test_loopback_may_be_insecure(host):
    assert asked(f"https://{host}:1", "--insecure").exit_code == 1


@pytest.mark.parametrize(
    "url", ["https://agent.example", "https://127.0.0.1.example", "https://10.0.0.1"]
)
def test_elsewhere_insecure_is_refused(url):
    done = asked(url, "--insecure")
    assert done.exit_code == 2
    assert "--insecure is for a loopback address" in done.stderr


def test_a_proxy_is_not_asked():
    with Server(answer(200, CIRCUIT_CLOSED)) as proxy, Server(answer(503, ILL)) as server:
        env = dict.fromkeys(("http_proxy", "HTTP_PROXY", "all_proxy"), proxy.base_url)
        assert asked(server.base_url, **env).exit_code == 1
        assert proxy.requests == []


@pytest.mark.parametrize(
    "url",
    [
        "",
        "agent",
        "127.0.0.1:10060",
        "ftp://agent",
        "file:///etc/passwd",
        "http://",
        "http://:80",
        "http://agent:port",
        "http://agent:99999",
        "http://[::1",
        "http://user:hunter2@agent",
        "http://agent/a b",
        "http://agent/\r\nX: y",
        "http://ägent",
    ],
)
def test_what_is_no_url_is_a_usage_error_and_is_not_repeated(url):
    done = CliRunner().invoke(main, ["health", "--url", url])
    assert done.exit_code == 2
    assert "Invalid value for '--url': write http://host:port/path" in done.stderr
    assert "hunter2" not in done.stderr


@pytest.mark.parametrize(
    ("content", "why"), [(None, "No such file"), (b"no certificate", "it holds no certificate")]
)
def test_a_ca_file_that_cannot_be_used_is_named(tmp_path, content, why):
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_bytes(content)
    done = asked("https://127.0.0.1:1", f"--ca-file={path}")
    assert done.exit_code == 2
    assert f"--ca-file {path} cannot be used: {why}" in done.stderr
    assert asked("https://127.0.0.1:1", f"--ca-file={path}", "--insecure").exit_code == 2


def test_as_a_process_it_ends_with_its_status_while_a_server_keeps_it_waiting(tmp_path):
    with Server(silence) as server:
        began = time.monotonic()
        done = run(tmp_path, "health", f"--url={server.base_url}")
        assert done.returncode == 1
        assert done.stderr.endswith(": no complete answer within 5 s\n")
        assert 5 <= time.monotonic() - began < 9
