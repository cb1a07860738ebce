"""Warnings about configurations that are valid and probably not what is meant."""

import json

import pytest
from click.testing import CliRunner

from exporter.cli.commands import main
from exporter.config import load
from tests.config.config_file import KEY, write_config

NOBODY = "nobody is notified when a fine-tune fails: "
UNMATCHED = (
    "nobody is notified when a fine-tune of account {} fails: no receiver with failed among its"
    " events matches it"
)
NO_RECOVERY = (
    "receivers[a] gets no recovered: it gets no failed, and a recovery is sent to those who were"
    " notified of the failure"
)
ONE = {"name": "a", "type": "slack", "url": "https://hooks.example/hunter2"}
ALERTMANAGER = {"name": "am", "type": "alertmanager", "urls": ["http://am:9093"]}
SLACK_URL = {"CARTESIA_EXPORTER_SLACK_URL": "https://hooks.example/hunter2"}


def warnings(tmp_path, environ=KEY, **keys) -> tuple[str, ...]:
    return load(write_config(tmp_path, json.dumps(keys)), environ).warnings


def accounts(*names: str) -> list[dict[str, str]]:
    return [{"name": name, "api_key_env": "CARTESIA_API_KEY"} for name in names]


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, [f"{NOBODY}there are no receivers"]),
        ({"receivers": []}, [f"{NOBODY}there are no receivers"]),
        ({"receivers": [ONE]}, []),
        ({"receivers": [{**ONE, "events": ["agent"]}, {**ONE, "name": "b"}]}, []),
        ({"receivers": [ALERTMANAGER]}, []),
        (
            {"receivers": [{**ONE, "events": ["agent", "stuck"]}]},
            [f"{NOBODY}no receiver has failed among its events"],
        ),
        (
            {"receivers": [ONE], "alerts": {"events": []}},
            [f"{NOBODY}no receiver has failed among its events"],
        ),
        ({"receivers": [{**ONE, "events": ["recovered", "failed"]}]}, []),
        (
            {"receivers": [{**ONE, "events": ["recovered"]}, {**ONE, "name": "b"}]},
            [NO_RECOVERY],
        ),
        (
            {"receivers": [{**ONE, "events": []}, {**ONE, "name": "b"}]},
            ["receivers[a] gets nothing: it has no events"],
        ),
        (
            {"receivers": [{**ONE, "match": {"account": "prod"}}], "accounts": accounts("x", "y")},
            [
                f"{NOBODY}no receiver matches an account",
                "receivers[a].match.account matches none of the accounts",
            ],
        ),
        (
            {"receivers": [{**ONE, "match": {"account": "[x]"}}], "accounts": accounts(*"wxyz")},
            [
                UNMATCHED.format("w, y, z"),
            ],
        ),
        (
            {"receivers": [{**ONE, "match": {"account": "a"}}], "accounts": accounts(*"abcdefghi")},
            [
                UNMATCHED.format("b, c, d, e, f and 3 more"),
            ],
        ),
        ({"receivers": [{**ONE, "match": {"name": "x"}}]}, []),
    ],
)
def test_a_configuration_by_which_nobody_is_notified_has_a_warning(tmp_path, keys, expected):
    assert list(warnings(tmp_path, **keys)) == expected


TEAMS = [
    {"name": "a", "api_key": "sk_car_hunter2", "labels": {"team": "voices", "tier": "gold"}},
    {"name": "b", "api_key": "sk_car_hunter2", "labels": {"team": "research"}},
]
UNFIT = "receivers[a].{} matches none of the accounts"


@pytest.mark.parametrize(
    ("match", "expected"),
    [
        ({"label.team": "voices|research"}, None),
        ({"label.team": "voice"}, "match.label.team"),
        ({"label.tier": ""}, None),
        ({"label.tier": "gold", "account": "a"}, None),
        ({"label.tier": "gold", "account": "b"}, "match"),
        ({"account": "a", "label.team": "x", "label.tier": "x"}, "match.label.team"),
        ({"dataset": "x", "name": "y"}, None),
    ],
)
def test_a_match_that_fits_no_account_has_a_warning(tmp_path, match, expected):
    receivers = [{**ONE, "match": match}, {**ONE, "name": "log"}]
    found = warnings(tmp_path, {}, accounts=TEAMS, receivers=receivers)
    assert found == (() if expected is None else (UNFIT.format(expected),))
    mentions = [{"match": {}, "mention": "<!here>"}, {"match": match, "mention": "<!here>"}]
    found = warnings(tmp_path, {}, accounts=TEAMS, receivers=[{**ONE, "mentions": mentions}])
    assert found == (() if expected is None else (UNFIT.format(f"mentions[1].{expected}"),))


def test_failures_of_an_account_whose_label_no_receiver_matches_have_a_warning(tmp_path):
    receivers = [{**ONE, "match": {"label.team": "voices"}}]
    found = warnings(tmp_path, {}, accounts=TEAMS, receivers=receivers)
    assert found == (UNMATCHED.format("b"),)
    rest = {**ONE, "name": "rest", "otherwise": True}
    assert warnings(tmp_path, {}, accounts=TEAMS, receivers=[*receivers, rest]) == ()


@pytest.mark.parametrize(
    ("first", "rest", "expected"),
    [
        ({}, {}, True),
        ({"events": ["failed", "stuck"]}, {"events": ["failed"]}, True),
        ({"events": ["failed"]}, {"events": ["failed", "recovered"]}, True),
        ({"events": ["failed"]}, {"events": ["failed", "stuck"]}, False),
        ({"match": {"name": "x"}}, {}, False),
        ({}, {"events": ["agent"]}, False),
    ],
)
def test_otherwise_behind_a_receiver_that_takes_everything_has_a_warning(
    tmp_path, first, rest, expected
):
    receivers = [{**ONE, **first}, {**ONE, "name": "rest", "otherwise": True, **rest}]
    found = warnings(tmp_path, receivers=receivers)
    text = (
        "receivers[rest] gets nothing about fine-tunes: receivers without match take all of its"
        " events before otherwise does"
    )
    assert found == ((text,) if expected else ())


SLACK_WEBHOOK = "https://hooks.slack.com/services/hunter2"
ANY = "write <!here>, <!subteam^S…> with the id of a user group or <@U…> with that of a user"


@pytest.mark.parametrize(
    ("mention", "remedy"),
    [
        ("<!here>", None),
        ("<!channel|channel> <!everyone>", None),
        ("<!subteam^S0123456> please look, mail to team@example.com", None),
        ("<!subteam^S0123456|@voices> <@U024BE7LH> <@W024BE7LH>", None),
        ("@here", "write <!here>"),
        ("@Channel", "write <!channel>"),
        ("here", "write <!here>"),
        ("<@here>", "write <!here>"),
        ("<!here> @everyone", "write <!everyone>"),
        ("<!HERE>", "write <!here>"),
        ("@team", ANY),
        ("<@team>", ANY),
        ("<@S0123456>", ANY),
        ("<!subteam^team>", ANY),
        ("<!subteam^S0123456> <@ada>", ANY),
        ("voices", ANY),
    ],
)
def test_a_mention_that_slack_does_not_understand_has_a_warning(tmp_path, mention, remedy):
    slack = {**ONE, "url": SLACK_WEBHOOK}
    expected = f"mentions nobody in Slack; {remedy}"
    found = warnings(tmp_path, receivers=[{**slack, "mention": mention}])
    assert found == (() if remedy is None else (f"receivers[a].mention {expected}",))
    rules = [{"match": {}, "mention": mention}]
    found = warnings(tmp_path, receivers=[{**slack, "mentions": rules}])
    assert found == (() if remedy is None else (f"receivers[a].mentions[0].mention {expected}",))


@pytest.mark.parametrize(("mention", "number"), [("@here", 0), ("@team", 0), ("<@here>", 1)])
def test_the_mentions_of_mattermost_and_rocket_chat_are_valid_at_other_hosts(
    tmp_path, mention, number
):
    assert len(warnings(tmp_path, receivers=[{**ONE, "mention": mention}])) == number


ACCOUNT = [{"api_key": "sk_car_hunter2"}]


@pytest.mark.parametrize(
    ("keys", "environ", "expected"),
    [
        ({}, SLACK_URL, []),
        ({"receivers": [ONE]}, SLACK_URL, ["SLACK_URL has no effect: the file lists receivers"]),
        (
            {"receivers": [{**ONE, "url": None, "url_env": "CARTESIA_EXPORTER_SLACK_URL"}]},
            SLACK_URL,
            [],
        ),
        (
            {"receivers": [{"name": "b", "type": "webhook", "url": "https://x.example",
                            "headers": {"X-Key": {"env": "CARTESIA_EXPORTER_HEADER"}}}]},
            {"CARTESIA_EXPORTER_HEADER": "hunter2"},
            [],
        ),
        (
            {"receivers": [ONE], "accounts": ACCOUNT},
            {"CARTESIA_BASE_URL": "http://hunter2", "CARTESIA_VERSION": "hunter2",
             "CARTESIA_API_KEY_FILE": "hunter2"},
            [
                f"{name} has no effect: the file lists accounts"
                for name in ("$CARTESIA_API_KEY", "API_KEY_FILE", "BASE_URL", "CARTESIA_VERSION")
            ],
        ),
        ({"receivers": [ONE], "accounts": ACCOUNT}, {"CARTESIA_API_KEY": ""}, []),
        (
            {"receivers": [ONE], "storage": {"path": "a.db"}},
            {"CARTESIA_EXPORTER_STORAGE_PATH": "b.db"},
            ["STORAGE_PATH has no effect: the file sets storage.path"],
        ),
        ({"receivers": [ONE], "storage": {"path": "a.db"}},
         {"CARTESIA_EXPORTER_STORAGE_PATH": "a.db"}, []),
        (
            {"receivers": [ONE]},
            {"CARTESIA_EXPORTER_SLACK_URI": "hunter2"},
            ['there is no such variable; did you mean "CARTESIA_EXPORTER_SLACK_URL"?'],
        ),
        (
            {"receivers": [ONE]},
            {"CARTESIA_EXPORTER_PORT": "tcp://10.0.0.1:10060",
             "CARTESIA_EXPORTER_PORT_10060_TCP_ADDR": "10.0.0.1",
             "CARTESIA_EXPORTER_SERVICE_HOST": "10.0.0.1",
             "CARTESIA_EXPORTER_SERVICE_PORT_HTTP": "10060"},
            [],
        ),
    ],
)  # fmt: skip
def test_a_variable_without_effect_has_a_warning_that_does_not_repeat_its_value(
    tmp_path, keys, environ, expected
):
    found = warnings(tmp_path, {**KEY, **environ}, **keys)
    found = tuple(text for text in found if not text.startswith(NOBODY))
    assert len(found) == len(expected)
    for text, end in zip(found, expected, strict=True):
        assert text.startswith("$CARTESIA_")
        assert text.endswith(end)
        assert "hunter2" not in text


@pytest.mark.parametrize("command", [["check-config"], ["run", "--config.check"]])
def test_check_config_prints_the_warnings_and_succeeds(tmp_path, command):
    path = write_config(tmp_path, json.dumps({"receivers": []}))
    runner = CliRunner(env={**KEY, **SLACK_URL})
    done = runner.invoke(main, [*command, f"--config.file={path}"])
    assert (done.exit_code, done.stdout) == (
        0,
        "The configuration is valid: 1 accounts, 0 receivers.\n",
    )
    assert done.stderr == (
        f"warning: {NOBODY}there are no receivers\n"
        "warning: $CARTESIA_EXPORTER_SLACK_URL has no effect: the file lists receivers\n"
    )


async def test_the_agent_logs_the_warnings_at_its_start_and_at_each_reload(tmp_path):
    from structlog.testing import capture_logs

    from tests.agent_fixture import running_agent

    with capture_logs() as entries:
        async with running_agent(tmp_path) as (fixture, agent):
            fixture.settings["receivers"] = []
            fixture.write()
            await fixture.reload(agent)
    found = [entry["warning"] for entry in entries if "warning" in entry]
    assert found[-1] == f"{NOBODY}there are no receivers"
