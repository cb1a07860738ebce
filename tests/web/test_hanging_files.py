"""A file system that hangs: what was read last goes on counting, and nobody waits for long."""

import threading
import time

from exporter.config.web_file import WebFile
from exporter.web import live_config as live_settings
from exporter.web.auth import AuthMiddleware
from exporter.web.live_config import ReloadingWebConfig, WebSettings
from tests.web.authenticated_server import File, ask, page, serving


class Held:
    """A file system that does not answer until it is let go."""

    def __init__(self, settings: WebSettings) -> None:
        self.gate, self.calls, self._settings = threading.Event(), 0, settings
        self.gate.set()

    def __call__(self) -> WebSettings | None:
        self.calls += 1
        assert self.gate.wait(30)
        return self._settings


def test_a_file_system_that_hangs_holds_up_neither_requests_nor_connections_for_long(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(live_settings, "_REQUEST_WAITS", 0.1)
    file = File(tmp_path)
    file.write(tls_server_config=file.issue())
    settings = WebFile(file.path).read()
    source = Held(settings)
    live = ReloadingWebConfig(settings, source)
    with serving(AuthMiddleware(page, live), 1, live.listening_tls) as [url]:
        trusted = file.client()
        assert ask(url, tls=trusted).status_code == 200
        source.gate.clear()
        before, calls = time.monotonic(), source.calls
        assert [ask(url, tls=trusted).status_code for _ in range(2)] == [200, 200]
        assert time.monotonic() - before < 5
        assert source.calls == calls + 1
        source.gate.set()
        assert ask(url, tls=trusted).status_code == 200


def test_the_event_loop_waits_for_files_that_hang_once_and_not_for_each_connection(tmp_path):
    file = File(tmp_path)
    file.write(tls_server_config=file.issue())
    settings = WebFile(file.path).read()
    source = Held(settings)
    source.gate.clear()
    live = ReloadingWebConfig(settings, source)
    before = time.monotonic()
    assert {live.newest_tls() for _ in range(100)} == {settings.tls}
    assert time.monotonic() - before < 1
    source.gate.set()
