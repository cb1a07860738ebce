"""No secret is visible in output, pages, state or command line, whatever fails."""

import base64
import ssl
import threading
from pathlib import Path
from typing import Any

import pytest
import trustme
from starlette.responses import JSONResponse, PlainTextResponse

from tests.process.agent_process import API_KEY, Agent, Process, get, injected
from tests.process.fake_api import Api, Inbox, agent_config, fake_api

OTHER_KEY = "sk_car_other.wVx3RefusedAndQuoted"
TOKEN = "T0kenInTheUrlThatIsASecret"
SIGNING = "whsec_TXVzdE5vdExlYWtNdXN0Tm90TGVha011c3ROb3RMZWFr"
PASSWORD = "hunter2ProxyPassword"
BEARER = "b34rerTokenOfAWebhook"
BASIC = "p4sswordOfAWebhook"
HEADER = "h3aderOfAWebhook"
ROUTING = "r0utingKeyInTheBody"
ENCODED = base64.b64encode(f"agent:{BASIC}".encode()).decode()
SECRETS = (API_KEY, OTHER_KEY, TOKEN, SIGNING, PASSWORD, BEARER, BASIC, HEADER, ROUTING, ENCODED)

NO_RESOLVER = """
import socket
real = socket.getaddrinfo
def getaddrinfo(host, *rest, **named):
    if host not in ("127.0.0.1", b"127.0.0.1"):
        raise socket.gaierror(socket.EAI_NONAME, f"no {host}")
    return real(host, *rest, **named)
socket.getaddrinfo = getaddrinfo
"""


def quote_key(request):
    key = request.headers.get("authorization", "")
    if OTHER_KEY not in key:
        return None
    problem = {"title": f"Bad {key}", "message": f"{key} is wrong", "request_id": OTHER_KEY}
    return JSONResponse(problem, 401)


def fail_by_path(request):
    failure = request.path.removesuffix("/api/v2/alerts").rsplit("/", 1)[1]
    if failure == "redirect":
        return PlainTextResponse("", 302, {"Location": f"https://{TOKEN}.example/{API_KEY}"})
    status = {"gone": 404, "broken": 500, "refused": 400, "throttled": 429}.get(failure, 200)
    return PlainTextResponse(f"no {request.path} {API_KEY} {request.headers}", status)


def receivers(inbox: Inbox, tls: str) -> list[dict[str, object]]:
    def one(name: str, url: str, **more: object) -> dict[str, object]:
        return {"name": name, "type": "webhook", "url": url, "timeout": "1s", **more}

    def member(failure: str) -> str:
        return f"{inbox.url.replace('://', f'://agent:{PASSWORD}@')}/{TOKEN}/{failure}"

    def at(failure: str) -> str:
        return f"{inbox.url}/{TOKEN}/{failure}?token={TOKEN}"

    bearer = {"bearer_token": BEARER, "headers": {"X-Key": HEADER}}
    basic = {"basic_auth": {"username": "agent", "password": BASIC}, "headers": {"X-Key": HEADER}}
    failures = ("gone", "broken", "refused", "throttled", "redirect", "hangs")
    return [
        one("good", at("good"), secret=SIGNING, **bearer),
        *(one(failure, at(failure), **bearer) for failure in failures),
        one("alerts", at("refused"), format="alertmanager", **basic),
        one(
            "template",
            at("broken"),
            format="template",
            template_secrets={"routing": ROUTING},
            template={"x": "{{ title }}", "key": "{{ secrets.routing }}"},
            **basic,
        ),
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
    """Yield the URL of a server with an untrusted certificate."""
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


def all_visible(process: Process, folder: Path, url: str) -> dict[str, str]:
    """Return all that others can see of the agent, by place."""
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


def config_with_all_failures(api: Api, inbox: Inbox, tls: str) -> dict[str, Any]:
    config = agent_config(api, *receivers(inbox, tls))
    other = {"name": "other", "api_key_env": "OTHER_KEY", "base_url": api.url}
    config["accounts"].append(other)
    config["alerts"]["first_run"] = "summary"
    return config


@pytest.mark.usefixtures("unmeasured")
@pytest.mark.parametrize("style", ["logfmt", "json"])
def test_no_secret_is_visible_whatever_fails(tmp_path, tls_server, style):
    with fake_api() as (api, inbox):
        api.answer = quote_key
        inbox.answer = fail_by_path
        inbox.is_held = lambda request: request.path.endswith("/hangs")
        inbox.gate.close()
        names = [r["name"] for r in receivers(inbox, tls_server)]
        agent = Agent(tmp_path, **config_with_all_failures(api, inbox, tls_server))
        flags = ("--log.level=debug", f"--log.format={style}")
        with agent.process(
            *flags, OTHER_KEY=OTHER_KEY, **injected(tmp_path, NO_RESOLVER)
        ) as process:
            found = process.wait_for_line(
                r"(http://127[\d.]+:\d+).*listening|listening.*(http://127[\d.]+:\d+)"
            )
            url = found.group(1) or found.group(2)
            api.world.add(status="failed")
            for name in names[1:]:
                process.wait_for_line(
                    rf"deliver(y failed|y dead|ed).*\b{name}\b|{name}.*delivery failed"
                )
            process.wait_for_line("poll failed.*unauthorized|unauthorized.*poll failed")
            visible = all_visible(process, tmp_path, url)
            assert process.stop(seconds=10) == 0
            visible["output to the end"] = process.output
        for where, text in visible.items():
            for secret in SECRETS:
                assert secret not in text, f"{secret} in {where}"
        assert "other" in visible["/"], "the page has content"
        assert "api_key_env: OTHER_KEY" in visible["/config"]
        assert visible["/config"].count("<secret>") > len(names)
