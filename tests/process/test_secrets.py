"""A run with failures of every kind, after which no secret is anywhere that others can look."""

import base64
import ssl
import threading
from pathlib import Path
from typing import Any

import pytest
import trustme
from starlette.responses import JSONResponse, PlainTextResponse

from tests.process.agent_process import API_KEY, Agent, Process, get
from tests.process.fake_api import Api, Inbox, agent_config, fake_api

OTHER_KEY = "sk_car_other.wVx3RefusedAndQuoted"
TOKEN = "T0kenInTheUrlThatIsASecret"
SIGNING = "whsec_TXVzdE5vdExlYWtNdXN0Tm90TGVha011c3ROb3RMZWFr"
PASSWORD = "hunter2ProxyPassword"
BEARER = "b34rerTokenOfAWebhook"
BASIC = "p4sswordOfAWebhook"
HEADER = "h3aderOfAWebhook"
ENCODED = base64.b64encode(f"agent:{BASIC}".encode()).decode()
SECRETS = (API_KEY, OTHER_KEY, TOKEN, SIGNING, PASSWORD, BEARER, BASIC, HEADER, ENCODED)

NO_RESOLVER = """
import socket
real = socket.getaddrinfo
def getaddrinfo(host, *rest, **named):
    if host not in ("127.0.0.1", b"127.0.0.1"):
        raise socket.gaierror(socket.EAI_NONAME, f"no {host}")
    return real(host, *rest, **named)
socket.getaddrinfo = getaddrinfo
"""


def quoting(request):
    key = request.headers.get("authorization", "")
    if OTHER_KEY not in key:
        return None
    problem = {"title": f"Bad {key}", "message": f"{key} is wrong", "request_id": OTHER_KEY}
    return JSONResponse(problem, 401)


def refusing(arrived):
    kind = arrived.path.removesuffix("/api/v2/alerts").rsplit("/", 1)[1]
    if kind == "redirect":
        return PlainTextResponse("", 302, {"Location": f"https://{TOKEN}.example/{API_KEY}"})
    status = {"gone": 404, "broken": 500, "refused": 400, "throttled": 429}.get(kind, 200)
    return PlainTextResponse(f"no {arrived.path} {API_KEY} {arrived.headers}", status)


def receivers(inbox: Inbox, tls: str) -> list[dict[str, object]]:
    def one(name: str, url: str, **more: object) -> dict[str, object]:
        return {"name": name, "type": "webhook", "url": url, "timeout": "1s", **more}

    def member(kind: str) -> str:
        return f"{inbox.url.replace('://', f'://agent:{PASSWORD}@')}/{TOKEN}/{kind}"

    def at(kind: str) -> str:
        return f"{inbox.url}/{TOKEN}/{kind}?token={TOKEN}"

    bearer = {"bearer_token": BEARER, "headers": {"X-Key": HEADER}}
    basic = {"basic_auth": {"username": "agent", "password": BASIC}, "headers": {"X-Key": HEADER}}
    failing = ("gone", "broken", "refused", "throttled", "redirect", "hangs")
    return [
        one("good", at("good"), secret=SIGNING, **bearer),
        *(one(kind, at(kind), **bearer) for kind in failing),
        one("alerts", at("refused"), format="alertmanager", **basic),
        one("template", at("broken"), format="template", template={"x": "{{ title }}"}, **basic),
        one("nobody", f"http://127.0.0.1:1/{TOKEN}", **basic),
        one("tls", f"{tls}/{TOKEN}"),
        one("name", f"https://{TOKEN}.invalid/{TOKEN}"),
        one("proxied", f"https://a.invalid/{TOKEN}", proxy_url=f"http://u:{PASSWORD}@127.0.0.1:1"),
        {"name": "chat", "type": "slack", "url": at("gone")},
        {
            "name": "am",
            "type": "alertmanager",
            "urls": [member("gone"), member("refused"), f"http://agent:{PASSWORD}@127.0.0.1:1"],
        },
    ]


@pytest.fixture
def tls_server():
    """A server whose certificate nobody trusts."""
    import socket

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    listener = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                try:
                    context.wrap_socket(connection, server_side=True)
                except OSError:
                    continue

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    yield f"https://127.0.0.1:{listener.getsockname()[1]}"
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(5)


def everything(process: Process, folder: Path, url: str) -> dict[str, str]:
    """All that others can see of the agent, by where."""
    paths = ("/", "/metrics", "/config", "/-/ready", "/-/healthy", "/none")
    pages = {path: get(url + path).text for path in paths}
    files = {
        str(path): path.read_bytes().decode("latin-1")
        for path in folder.rglob("state.db*")
        if path.is_file()
    }
    assert any(name.endswith("-wal") for name in files)
    command = Path(f"/proc/{process.pid}/cmdline").read_text(encoding="utf-8")
    return {**pages, **files, "output": process.output, "command line": command}


def of_everything(api: Api, inbox: Inbox, tls: str) -> dict[str, Any]:
    config = agent_config(api, *receivers(inbox, tls))
    other = {"name": "other", "api_key_env": "OTHER_KEY", "base_url": api.url}
    config["accounts"].append(other)
    config["alerts"]["first_run"] = "summary"
    return config


@pytest.mark.parametrize("style", ["logfmt", "json"])
def test_no_secret_leaves_whatever_fails(tmp_path, tls_server, style):
    (tmp_path / "sitecustomize.py").write_text(NO_RESOLVER, encoding="utf-8")
    with fake_api() as (api, inbox):
        api.answer = quoting
        inbox.answer = refusing
        inbox.is_held = lambda arrived: arrived.path.endswith("/hangs")
        inbox.gate.close()
        names = [r["name"] for r in receivers(inbox, tls_server)]
        agent = Agent(tmp_path, **of_everything(api, inbox, tls_server))
        flags = ("--log.level=debug", f"--log.format={style}")
        with agent.process(*flags, OTHER_KEY=OTHER_KEY, PYTHONPATH=str(tmp_path)) as process:
            found = process.wait_for_line(
                r"(http://127[\d.]+:\d+).*listening|listening.*(http://127[\d.]+:\d+)"
            )
            url = found.group(1) or found.group(2)
            api.world.add(status="failed")
            for name in names[1:]:
                process.wait_for_line(
                    rf"deliver(y failed|y given up|ed).*\b{name}\b|{name}.*delivery failed"
                )
            process.wait_for_line("poll failed.*unauthorized|unauthorized.*poll failed")
            seen = everything(process, tmp_path, url)
            assert process.stop(seconds=10) == 0
            seen["output to the end"] = process.output
        for where, text in seen.items():
            for secret in SECRETS:
                assert secret not in text, f"{secret} in {where}"
        assert "other" in seen["/"], "the page was looked at"
        assert "api_key_env: OTHER_KEY" in seen["/config"]
        assert seen["/config"].count("<secret>") > len(names)
