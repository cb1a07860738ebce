"""A real agent behind TLS and a password, scraped by a real Prometheus."""

import contextlib
import json
import socket
import subprocess

import httpx
import pytest

from tests.process.agent import Agent, until, url_of
from tests.process.cloud import cloud, watching
from tests.programs import required
from tests.web.guarded import File, ask, hash_of

PASSWORD, NEW = "hunter2ThePassword", "hunter3TheNextOne"


@contextlib.contextmanager
def prometheus(folder, target, password_file):
    """Scrape a target each second; yield what answers queries."""
    program = required("prometheus", package="prometheus")
    job = {
        "job_name": "cartesia",
        "scheme": "https",
        "static_configs": [{"targets": [target]}],
        "tls_config": {"ca_file": str(folder / "ca.pem")},
        "basic_auth": {"username": "prometheus", "password_file": str(password_file)},
    }
    file = folder / "prometheus.yml"
    whole = {"global": {"scrape_interval": "1s"}, "scrape_configs": [job]}
    file.write_text(json.dumps(whole), encoding="utf-8")
    # Prometheus cannot be given port 0; it has this one as soon as we let it go.
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    flags = (f"--config.file={file}", f"--storage.tsdb.path={folder / 'tsdb'}")
    command = [program, *flags, f"--web.listen-address=127.0.0.1:{port}"]
    with (folder / "prometheus.log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
    try:
        yield f"http://127.0.0.1:{port}/api/v1/query"
    finally:
        server.terminate()
        server.wait(20)


def up(url):
    answer = httpx.get(url, params={"query": "up"}, trust_env=False, timeout=10).json()
    found = answer["data"]["result"]
    return float(found[0]["value"][1]) if found else None


@pytest.fixture
def web(tmp_path):
    file = File(tmp_path)
    file.ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    users = {"prometheus": hash_of(PASSWORD)}
    file.write(tls_server_config=file.issue(), basic_auth_users=users)
    return file


def test_prometheus_scrapes_over_tls_with_a_password_that_is_rotated(tmp_path, web):
    password = tmp_path / "password"
    password.write_text(PASSWORD)
    with (
        cloud() as (api, _),
        Agent(tmp_path, **watching(api)).process(f"--web.config.file={web.path}") as process,
    ):
        url = url_of(process)
        assert url.startswith("https://127.0.0.1:")
        assert ask(f"{url}/config", tls=web.client()).status_code == 401
        shown = ask(f"{url}/config", tls=web.client(), auth=("prometheus", PASSWORD))
        assert f"base_url: {api.url}\n" in shown.text
        assert str(web.path) not in shown.text
        assert "basic_auth_users" not in shown.text
        with prometheus(tmp_path, url.removeprefix("https://"), password) as queries:
            until(lambda: up(queries) == 1, seconds=30)
            users = {"prometheus": hash_of(NEW)}
            web.write(tls_server_config=web.issue(), basic_auth_users=users)
            until(lambda: up(queries) == 0, seconds=30)
            password.write_text(NEW)
            until(lambda: up(queries) == 1, seconds=30)
        assert process.stop() == 0
        assert "Traceback" not in process.text
        for secret in (PASSWORD, NEW, hash_of(PASSWORD), hash_of(NEW), "PRIVATE KEY"):
            assert secret not in process.text


def test_an_agent_that_is_asked_to_stop_does_not_wait_for_open_tls_connections(tmp_path, web):
    with (
        cloud() as (api, _),
        Agent(tmp_path, **watching(api)).process(f"--web.config.file={web.path}") as process,
        httpx.Client(trust_env=False, verify=web.client()) as client,
    ):
        url = url_of(process)
        assert client.get(f"{url}/-/healthy").status_code == 200
        port = int(url.rsplit(":", 1)[1])
        with socket.create_connection(("127.0.0.1", port)):  # says nothing
            assert process.stop(seconds=5) == 0


def test_what_has_no_effect_and_a_broken_file_are_logged_with_every_mistake(tmp_path, web):
    web.write(http_server_config={"http2": True})
    with (
        cloud() as (api, _),
        Agent(tmp_path, **watching(api)).process(f"--web.config.file={web.path}") as process,
    ):
        url = url_of(process)
        process.line("level=warning .*has no effect.*http2")
        assert ask(f"{url}/metrics").status_code == 200
        web.write(http_server_config={"http3": PASSWORD}, basic_auth_users={"a": PASSWORD})
        assert ask(f"{url}/metrics").status_code == 500
        assert ask(f"{url}/-/healthy").status_code == 200
        said = process.line("level=error .*the web configuration cannot be used").string
        assert "basic_auth_users.a: must be a bcrypt hash" in said
        assert "http_server_config.http3: unknown key" in said
        assert PASSWORD not in process.text
