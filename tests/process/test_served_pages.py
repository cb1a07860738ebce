"""The pages of a running agent: behind TLS and users, without secrets, over a poller that hangs."""

import re
from urllib.parse import urljoin

import httpx
from starlette.responses import PlainTextResponse

from tests.process.agent_process import API_KEY, Agent, get, until, url_of
from tests.process.fake_api import agent_config, fake_api, webhook
from tests.web.authenticated_server import PASSWORD, USER, WebConfigFixture, hash_of

WEBHOOK_SECRET = "whsec_QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBU2VjcmV0"
SLACK_PATH = "T00000000/B00000000/SlackUrlThatMustNotLeak"
PATHS = (
    "/", "/fine-tunes", "/notifications", "/config", "/static/style.css", "/static/script.js",
    "/static/icon.svg", "/api/v1/status", "/api/v1/accounts", "/api/v1/fine-tunes",
    "/api/v1/events", "/api/v1/deliveries", "/api/v1/receivers", "/api/v1/openapi.json",
    "/fine-tunes/main/none", "/api/v1/fine-tunes/main/none", "/none",
)  # fmt: skip


def test_everything_but_health_is_behind_tls_and_users(tmp_path):
    web = WebConfigFixture(tmp_path)
    web.write(tls_server_config=web.issue(), basic_auth_users={USER: hash_of(PASSWORD)})
    with (
        fake_api() as (api, _),
        Agent(tmp_path, **agent_config(api)).process(
            f"--web.config.file={web.path}", "--web.enable-lifecycle"
        ) as process,
    ):
        url = url_of(process)
        process.wait_for_line("baseline taken")
        auth = (USER.encode(), PASSWORD.encode())
        with httpx.Client(verify=web.client(), trust_env=False, base_url=url, timeout=20) as client:
            for path in PATHS:
                refused = client.get(path)
                assert (path, refused.status_code) == (path, 401)
                answer = client.get(path, auth=auth, headers={"Accept": "text/html"})
                expected = 404 if "none" in path else 200
                assert (path, answer.status_code) == (path, expected)
            assert client.post("/notifications", data={"do": "retry"}).status_code == 401
            assert client.get("/-/healthy").status_code == 200


def test_no_answer_has_a_secret(tmp_path):
    with fake_api() as (api, inbox):
        inbox.answer = lambda request: PlainTextResponse(f"no {request.path} {API_KEY}", 400)
        new = api.world.add(name="Ada", status="training")
        slack = {"name": "chat", "type": "slack", "url": f"{inbox.url}/services/{SLACK_PATH}"}
        hook = webhook(inbox, secret_env="HOOK_SECRET")
        config = agent_config(api, hook, slack)
        with Agent(tmp_path, **config).process(
            "--web.enable-lifecycle", HOOK_SECRET=WEBHOOK_SECRET
        ) as process:
            url = url_of(process)
            process.wait_for_line("baseline taken")
            api.world.set_status(new.id, "failed")
            process.wait_for_line("delivery dead", times=2)
            story = f"/fine-tunes/main/{new.id}"
            paths = {*PATHS, story, f"/api/v1{story}", "/metrics", "/-/ready", "/-/healthy"}
            for path in sorted(paths):
                for accept in ("text/html", "*/*"):
                    text = get(urljoin(url, path), Accept=accept).text
                    for secret in (API_KEY, WEBHOOK_SECRET, SLACK_PATH, "MustNotLeak"):
                        assert (path, secret in text) == (path, False)
            assert "400" in get(urljoin(url, story)).text


def test_a_page_over_a_poller_that_hangs_does_not_stay_green(tmp_path):
    with fake_api() as (api, _):
        config = agent_config(api, timeout="900ms", stale_after="4s")
        with Agent(tmp_path, **config).process() as process:
            url = url_of(process)
            process.wait_for_line("baseline taken")
            until(lambda: 'class="label completed" id="l-data"' in get(url).text)
            first = get(url)
            assert re.search(r'data-stale-at="[^"]+Z"', first.text)
            api.is_held = lambda _: True
            api.gate.close()
            until(lambda: 'class="label warn" id="l-data"' in get(url).text)
            until(lambda: "stale" in get(url).text.split("<title>")[1].split("</title>")[0])
            again = get(url, **{"If-None-Match": first.headers["etag"]})
            assert again.status_code == 200
            status = get(f"{url}/api/v1/status").json()
            assert (status["complete"], status["accounts"][0]["state"]) == (False, "stale")
