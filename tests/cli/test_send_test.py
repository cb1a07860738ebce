"""`send-test`: one message, sent once, and its outcome."""

import json
import re

import pytest
from click.testing import CliRunner
from starlette.responses import PlainTextResponse

from exporter.cli.commands import main
from exporter.core.links import LinkTemplates
from exporter.core.message import MessageSettings
from tests.process.agent_process import API_KEY, Agent, run
from tests.process.fake_api import agent_config, fake_api, webhook


@pytest.fixture(scope="module")
def receivers(tmp_path_factory):
    with fake_api() as (api, inbox):
        inbox.answer = lambda request: (
            PlainTextResponse("no such hook", 404)
            if request.path == "/gone"
            else PlainTextResponse("ok")
        )
        nobody = {"name": "nobody", "type": "webhook", "url": "http://127.0.0.1:1/s3cret"}
        chat = {"name": "chat", "type": "slack", "url": f"{inbox.url}/chat"}
        sections = [webhook(inbox), webhook(inbox, "gone"), nobody, chat]
        folder = tmp_path_factory.mktemp("send")
        yield Agent(folder, **agent_config(api, *sections)), inbox


def send(receivers, name: str, *more: str):
    agent, inbox = receivers
    before = len(inbox.requests)
    command = ["send-test", f"--config.file={agent.file}", name, *more]
    done = CliRunner(env={"CARTESIA_API_KEY": API_KEY}).invoke(main, command)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done, inbox.requests[before:]


@pytest.mark.parametrize("name", ["ops", "chat"])
def test_an_accepted_message_is_delivered(receivers, name):
    done, requests = send(receivers, name)
    assert done.exit_code == 0
    assert done.stdout.startswith(f"{name}: delivered: answered 200 (")
    assert len(requests) == 1
    assert b"est" in requests[0].body


def test_the_process_prints_the_outcome(receivers):
    agent, inbox = receivers
    before = len(inbox.requests)
    done = run(agent.folder, "send-test", f"--config.file={agent.file}", "ops")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("ops: delivered: answered 200 (")
    assert len(inbox.requests) == before + 1


def test_a_refusal_is_printed_with_outcome_and_time_and_not_retried(receivers):
    done, requests = send(receivers, "gone")
    assert done.exit_code == 1
    assert done.stdout.startswith("gone: endpoint: answered 404 (")
    assert done.stdout.endswith(" s)\n")
    assert len(requests) == 1


def test_an_unreachable_receiver_is_reported_without_its_url(receivers):
    done, _ = send(receivers, "nobody")
    assert done.exit_code == 1
    assert done.stdout.startswith("nobody: transient: no connection")
    assert "s3cret" not in done.stdout + done.stderr


def test_a_dry_run_prints_the_body_and_sends_nothing(receivers):
    done, requests = send(receivers, "ops", "--dry-run")
    assert (done.exit_code, requests) == (0, [])
    assert json.loads(done.stdout)["type"] == "agent.test"


@pytest.mark.parametrize("name", ["ops", "chat"])
def test_a_dry_run_is_indented_and_readable_in_every_script(receivers, name):
    done, _ = send(receivers, name, "--dry-run", "--sample=long")
    lines = done.stdout.splitlines()
    assert (lines[0], lines[-1]) == ("{", "}")
    assert len(lines) > 10
    assert all(line.isprintable() for line in lines)
    assert "\u05e9\u05dc\u05d5\u05dd" in done.stdout, "a name in Hebrew"
    # Slack messages have no character that turns the reading order.
    assert (r"\u202e" in done.stdout) == (name == "ops")


@pytest.mark.parametrize("more", [[], ["--sample=failed"], ["--sample=digest"]])
def test_a_message_links_to_the_playground_and_to_the_agent(receivers, more):
    url = "https://exporter.example/cartesia"
    for name in ("ops", "chat"):
        done, [request] = send(receivers, name, f"--web.external-url={url}", *more)
        assert done.exit_code == 0
        assert b"https://play.cartesia.ai/" in request.body
        assert url.encode() in request.body
    done, requests = send(receivers, "ops", "--web.external-url=https://u:s3cret@x.example")
    assert (done.exit_code, requests) == (2, [])
    assert "must not contain a user name or a password" in done.stderr
    assert "s3cret" not in done.stderr


@pytest.mark.parametrize(("sample", "number"), [("failed", 1), ("digest", 30), ("long", 1)])
def test_a_sample_is_an_alert_that_is_marked_as_a_test_everywhere(receivers, sample, number):
    done, [request] = send(receivers, "ops", f"--sample={sample}")
    assert done.stdout.startswith("ops: delivered: answered 200 (")
    assert request.id.startswith("test_")
    data = json.loads(request.body)["data"]
    events = [event["data"] for event in data["events"]] if number > 1 else [data]
    assert len(events) == number
    assert data.get("title", "TEST: ").startswith("TEST: ")
    for event in events:
        fine_tune = event["fine_tune"]
        assert fine_tune["id"].startswith("test_")
        assert fine_tune["name"].startswith("TEST")
        assert "nothing failed" in fine_tune["description"]
        assert fine_tune["status"] == "failed"


def test_a_sample_failure_has_a_history(receivers):
    _, [request] = send(receivers, "ops", "--sample=failed")
    data = json.loads(request.body)["data"]
    assert (data["trained_seconds"], data["usual_seconds"]) == (7800, 18000)
    _, [request] = send(receivers, "chat", "--sample=failed")
    assert "Trained 2 h 10 min, usually 5 h" in json.loads(request.body)["text"]


@pytest.mark.parametrize(
    ("sample", "event_type", "title"),
    [
        ("baseline", "agent.baseline", "Watching account TEST"),
        ("trouble", "agent.poll_failing", "Account TEST cannot be read"),
    ],
)
def test_a_sample_of_the_agent_is_marked_as_a_test(receivers, sample, event_type, title):
    _, [request] = send(receivers, "ops", f"--sample={sample}")
    body = json.loads(request.body)
    assert (body["type"], body["data"]["account"]) == (event_type, "TEST")
    assert request.id.startswith("test_")
    _, [request] = send(receivers, "chat", f"--sample={sample}")
    assert f"TEST: {title}" in json.loads(request.body)["text"]


@pytest.mark.parametrize("sample", ["failed", "digest", "baseline", "trouble", "long"])
def test_a_slack_sample_starts_with_test_and_is_within_the_limits(receivers, sample):
    done, [request] = send(receivers, "chat", f"--sample={sample}")
    assert done.exit_code == 0
    body = json.loads(request.body)
    assert re.match(r"\S+ TEST: ", body["text"])
    assert len(body["text"]) + len(json.dumps(body["blocks"], ensure_ascii=False)) < 20_000
    assert "<!channel>" not in body["text"]


def test_a_sample_has_new_ids_each_time_and_a_dry_run_sends_nothing(receivers):
    """A receiver that drops repeated ids would drop the second sample."""
    ids = {send(receivers, "ops", "--sample=failed")[1][0].id for _ in range(2)}
    assert len(ids) == 2
    done, requests = send(receivers, "ops", "--sample=digest", "--dry-run")
    assert (done.exit_code, requests) == (0, [])
    assert json.loads(done.stdout)["type"] == "fine_tune.digest"


def test_a_digest_sample_is_limited_to_the_events_of_the_receiver():
    from exporter.cli.send_test import _message

    settings = MessageSettings(LinkTemplates("https://play.example"))
    for max_events, message_type in ((1, "fine_tune.failed"), (7, "fine_tune.digest")):
        message = _message("main", "digest", settings, max_events, 1_800_000_000.0)
        assert (len(message.events), message.type) == (max_events, message_type)
    models = {event.fine_tune.model_id for event in message.events if event.fine_tune}
    assert len(models) == 3


def test_an_unknown_receiver_is_refused_with_the_configured_names(receivers):
    done, _ = send(receivers, "opps")
    assert done.exit_code == 2
    assert "no receiver opps" in done.stderr
    assert "ops, gone, nobody, chat" in done.stderr
