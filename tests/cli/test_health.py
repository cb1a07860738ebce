"""`health`: status 0 for a healthy agent, else 1 and one line, within the timeout."""

import threading
import time

import pytest
from click.testing import CliRunner

from exporter.cli import health
from exporter.cli.commands import main
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

HEALTHY = b"cartesia-exporter is healthy: 5 of 5 parts are on time.\n"
UNHEALTHY = b"cartesia-exporter is not healthy: 4 of 5 parts are on time.\ndeliver ops: 75 s late\n"


def invoke(url, *flags, **env):
    return CliRunner(env=env).invoke(main, ["health", f"--url={url}/-/healthy", *flags])


def error_of(server, *flags) -> str:
    """Return the one line of a failed check, without the URL."""
    done = invoke(server.base_url, *flags)
    error: str = done.stderr
    assert (done.exit_code, done.stdout) == (1, "")
    prefix = f"cartesia-exporter: {server.base_url}/-/healthy: "
    assert error.startswith(prefix)
    assert error.count("\n") == 1
    return error.removeprefix(prefix).rstrip("\n")


def test_a_healthy_agent_is_0_and_its_answer():
    with Server(answer(200, HEALTHY)) as server:
        done = invoke(server.base_url)
        assert (done.exit_code, done.stdout, done.stderr) == (0, HEALTHY.decode(), "")
        [request] = server.requests
        assert (request.method, request.target) == ("GET", "/-/healthy")
        assert request.headers["user-agent"].startswith("cartesia-exporter/")


def test_an_unhealthy_agent_is_1_and_its_answer_in_one_line():
    with Server(answer(503, UNHEALTHY)) as server:
        assert error_of(server) == f"answered 503: {' '.join(UNHEALTHY.decode().split())}"


@pytest.mark.parametrize("status", [204, 301, 401, 404, 500])
def test_any_other_status_is_1(status):
    with Server(answer(status)) as server:
        assert error_of(server) == f"answered {status}: no text"


def test_a_redirect_is_not_followed():
    with Server(answer(200, HEALTHY)) as other, Server(redirect(other.base_url)) as server:
        assert error_of(server).startswith("answered 307")
        assert other.requests == []


def test_the_printed_answer_is_clean_and_short():
    hostile = b"\x1b[31mnot\x07 healthy\r\n\x9b\xff\xe2\x80\xae " + b"x" * 5000
    with Server(answer(503, hostile)) as server:
        line = error_of(server)
        assert line.startswith("answered 503: [31mnot healthy ")
        assert line.isprintable()
        assert len(line) < 330


def test_an_endless_answer_is_not_read_to_its_end():
    with Server(chunked(zeros(10_000))) as server:
        started_at = time.monotonic()
        assert invoke(server.base_url).exit_code == 0
        assert time.monotonic() - started_at < 4
        assert server.bytes_sent < 64 * 2**20


@pytest.mark.parametrize(
    "script", [silence, drips(head(200, content_length=99)), drips(b"HTTP/1.1 200 O", b"K")]
)
def test_a_slow_answer_ends_with_the_timeout(monkeypatch, script):
    monkeypatch.setattr(health, "_TIMEOUT_SECONDS", 0.5)
    with Server(script) as server:
        started_at = time.monotonic()
        assert error_of(server) == "no complete answer within 0 s"
        assert time.monotonic() - started_at < 3


def test_a_hanging_name_lookup_ends_with_the_timeout(monkeypatch):
    import socket

    answered = threading.Event()
    monkeypatch.setattr(health, "_TIMEOUT_SECONDS", 0.3)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answered.wait(30))
    started_at = time.monotonic()
    assert "no complete answer" in invoke("http://agent.example").stderr
    assert time.monotonic() - started_at < 10
    answered.set()


def test_a_refused_connection_is_reported():
    with Server(silence) as server:
        url = server.base_url
    done = invoke(url)
    assert done.exit_code == 1
    assert done.stderr == (
        f"cartesia-exporter: {url}/-/healthy: no connection: Connection refused\n"
    )


def test_an_invalid_host_name_is_reported():
    done = invoke("http://agent..example")
    assert done.exit_code == 1
    assert done.stderr.endswith("no connection: the host's name cannot be looked up\n")


@pytest.mark.parametrize(
    ("script", "why"),
    [
        (sends_then_hangs_up(), "no connection: it was closed"),
        (sends_then_resets(b"HTTP/1.1"), "no connection: Connection reset by peer"),
        (sends_then_hangs_up(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"), "the answer is not HTTP"),
        (sends(b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 1000 + b"\r\n"), "the answer is not HTTP"),
    ],
)
def test_a_broken_answer_is_1(script, why):
    with Server(script) as server:
        assert why in error_of(server)


def test_a_certificate_is_verified_against_the_file(tmp_path):
    issuer, ca_file = authority(tmp_path)
    with Server(answer(200, HEALTHY), server_context(issuer, "127.0.0.1")) as server:
        done = invoke(server.base_url, f"--ca-file={ca_file}")
        assert (done.exit_code, done.stdout) == (0, HEALTHY.decode())
        assert "the certificate is not trusted: " in error_of(server)
        assert len(server.requests) == 1


def test_insecure_accepts_a_certificate_of_another_name_on_loopback(tmp_path):
    issuer, ca_file = authority(tmp_path)
    with Server(answer(503, UNHEALTHY), server_context(issuer, "agent.example")) as server:
        assert "the certificate is not trusted: " in error_of(server, f"--ca-file={ca_file}")
        assert error_of(server, "--insecure").startswith("answered 503")


def test_a_server_without_tls_is_reported():
    with Server(silence) as server:
        server.greeting = b"HTTP/1.1 400 Bad Request\r\n\r\n"
        done = invoke(server.base_url.replace("http:", "https:"))
        assert done.exit_code == 1
        assert "no TLS connection" in done.stderr


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "127.9.9.9"])
def test_insecure_is_allowed_on_loopback(host):
    assert invoke(f"https://{host}:1", "--insecure").exit_code == 1


@pytest.mark.parametrize(
    "url", ["https://agent.example", "https://127.0.0.1.example", "https://10.0.0.1"]
)
def test_insecure_is_refused_elsewhere(url):
    done = invoke(url, "--insecure")
    assert done.exit_code == 2
    assert "--insecure is for a loopback address" in done.stderr


def test_no_proxy_is_used():
    with Server(answer(200, HEALTHY)) as proxy, Server(answer(503, UNHEALTHY)) as server:
        env = dict.fromkeys(("http_proxy", "HTTP_PROXY", "all_proxy"), proxy.base_url)
        assert invoke(server.base_url, **env).exit_code == 1
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
def test_an_invalid_url_is_a_usage_error_and_is_not_printed(url):
    done = CliRunner().invoke(main, ["health", "--url", url])
    assert done.exit_code == 2
    assert "Invalid value for '--url': write http://host:port/path" in done.stderr
    assert "hunter2" not in done.stderr


@pytest.mark.parametrize(
    ("content", "why"), [(None, "No such file"), (b"no certificate", "it contains no certificate")]
)
def test_an_unusable_ca_file_is_named(tmp_path, content, why):
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_bytes(content)
    done = invoke("https://127.0.0.1:1", f"--ca-file={path}")
    assert done.exit_code == 2
    assert f"--ca-file {path} cannot be used: {why}" in done.stderr
    assert invoke("https://127.0.0.1:1", f"--ca-file={path}", "--insecure").exit_code == 2


def test_the_process_ends_with_the_timeout(tmp_path):
    run(tmp_path, "--version")  # starts what forks the processes
    with Server(silence) as server:
        started_at = time.monotonic()
        done = run(tmp_path, "health", f"--url={server.base_url}")
        assert done.returncode == 1
        assert done.stderr.endswith(": no complete answer within 5 s\n")
        assert 5 <= time.monotonic() - started_at < 9
