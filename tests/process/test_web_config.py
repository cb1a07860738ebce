"""A real agent with TLS and a password, scraped by a real Prometheus."""

import socket

import httpx
import pytest

from tests.process.agent_process import Agent, until, url_of
from tests.process.fake_api import agent_config, fake_api
from tests.system.prometheus import prometheus
from tests.web.authenticated_server import WebConfigFixture, ask, hash_of

pytestmark = pytest.mark.usefixtures("unmeasured")

PASSWORD, NEW = "hunter2ThePassword", "hunter3TheNextOne"


def behind_tls(folder, password_file):
    """Return the keys of a scrape job that trusts our authority and sends a password."""
    return {
        "scheme": "https",
        "tls_config": {"ca_file": str(folder / "ca.pem")},
        "basic_auth": {"username": "prometheus", "password_file": str(password_file)},
    }


@pytest.fixture
def web(tmp_path):
    file = WebConfigFixture(tmp_path)
    file.ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    users = {"prometheus": hash_of(PASSWORD)}
    file.write(tls_server_config=file.issue(), basic_auth_users=users)
    return file


def test_prometheus_scrapes_over_tls_with_a_rotated_password(tmp_path, web):
    password = tmp_path / "password"
    password.write_text(PASSWORD)
    with (
        fake_api() as (api, _),
        Agent(tmp_path, **agent_config(api)).process(f"--web.config.file={web.path}") as process,
    ):
        url = url_of(process)
        assert url.startswith("https://127.0.0.1:")
        assert ask(f"{url}/config", tls=web.client()).status_code == 401
        answer = ask(f"{url}/config", tls=web.client(), auth=("prometheus", PASSWORD))
        assert f"base_url: {api.url}\n" in answer.text
        assert str(web.path) not in answer.text
        assert "basic_auth_users" not in answer.text
        target = url.removeprefix("https://")
        with prometheus(tmp_path, target, **behind_tls(tmp_path, password)) as scraping:
            until(lambda: scraping.value("up") == 1, seconds=30)
            users = {"prometheus": hash_of(NEW)}
            web.write(tls_server_config=web.issue(), basic_auth_users=users)
            until(lambda: scraping.value("up") == 0, seconds=30)
            password.write_text(NEW)
            until(lambda: scraping.value("up") == 1, seconds=30)
        assert process.stop() == 0
        assert "Traceback" not in process.output
        for secret in (PASSWORD, NEW, hash_of(PASSWORD), hash_of(NEW), "PRIVATE API_KEY"):
            assert secret not in process.output


def test_a_shutdown_does_not_wait_for_open_tls_connections(tmp_path, web):
    with (
        fake_api() as (api, _),
        Agent(tmp_path, **agent_config(api)).process(f"--web.config.file={web.path}") as process,
        httpx.Client(trust_env=False, verify=web.client()) as client,
    ):
        url = url_of(process)
        assert client.get(f"{url}/-/healthy").status_code == 200
        port = int(url.rsplit(":", 1)[1])
        with socket.create_connection(("127.0.0.1", port)):  # sends nothing
            assert process.stop(seconds=5) == 0


def test_keys_without_effect_and_all_mistakes_of_a_broken_file_are_logged(tmp_path, web):
    web.write(http_server_config={"http2": True})
    with (
        fake_api() as (api, _),
        Agent(tmp_path, **agent_config(api)).process(f"--web.config.file={web.path}") as process,
    ):
        url = url_of(process)
        process.wait_for_line("level=warning .*has no effect.*http2")
        assert ask(f"{url}/metrics").status_code == 200
        web.write(http_server_config={"http3": PASSWORD}, basic_auth_users={"a": PASSWORD})
        assert ask(f"{url}/metrics").status_code == 500
        assert ask(f"{url}/-/healthy").status_code == 200
        error = process.wait_for_line("level=error .*the web configuration cannot be used").string
        assert "basic_auth_users.a: must be a bcrypt hash" in error
        assert "http_server_config.http3: unknown key" in error
        assert PASSWORD not in process.output
