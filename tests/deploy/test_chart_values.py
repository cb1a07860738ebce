"""What is given as a value of the chart gets where it belongs, or is refused with the reason."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from exporter import __version__
from exporter.config.receivers import HeaderValue
from exporter.config.section import Section
from tests.deploy.chart import CHART, Rendered, helm

EVERYTHING = CHART / "ci" / "everything-values.yaml"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("helm")


def leaves(node: object) -> Iterator[str]:
    """Yield each text and number of a document, however deep."""
    if isinstance(node, dict):
        node = [*node.values()]
    if isinstance(node, list):
        for each in node:
            yield from leaves(each)
    elif not isinstance(node, bool):
        yield str(node)


def test_every_value_that_is_given_gets_somewhere(home):
    rendered = Rendered(home, f"--values={EVERYTHING}")
    secrets = [text for each in rendered.all("Secret") for text in each["data"].values()]
    written = [*leaves(rendered.documents), *(base64.b64decode(each).decode() for each in secrets)]
    text = "\n".join(written)
    given = [*leaves(yaml.safe_load(EVERYTHING.read_text(encoding="utf-8")))]
    assert len(given) > 50
    # As often as it is given: one value may be a part of another.
    asked = "\n".join(given)
    assert [each for each in given if text.count(each) < asked.count(each)] == []


@pytest.mark.parametrize(
    ("flag", "image"),
    [
        ("image.pullPolicy=Always", f"cartesia-exporter:{__version__}"),
        ("image.tag=edge", "cartesia-exporter:edge"),
        (f"image.digest=sha256:{'0' * 64}", f"cartesia-exporter@sha256:{'0' * 64}"),
    ],
)
def test_the_image_is_of_the_chart_s_version_unless_a_tag_or_a_digest_is_given(home, flag, image):
    rendered = Rendered(home, "--set=existingSecret=a", f"--set={flag}")
    assert rendered.container["image"] == image


@pytest.mark.parametrize(
    ("change", "restarted"),
    [
        ("config.poll.interval=2m", True),
        ("webConfig.rate_limit.burst=20", True),
        ("webConfig.basic_auth_users.b=another", False),
    ],
)
def test_what_is_read_at_the_start_alone_is_another_pod(home, change, restarted):
    given = ["--set=existingSecret=a", "--set=webConfig.basic_auth_users.b=one"]
    checksums = {
        Rendered(home, *flags).one("Deployment")["spec"]["template"]["metadata"]["annotations"][
            "checksum/config"
        ]
        for flags in (given, [*given, f"--set={change}"])
    }
    assert len(checksums) == 1 + restarted


REFUSED: list[Any] = [
    ([], "give the key"),
    (["--set=existingSecret=a,secrets.api-key=b"], "give secrets or existingSecret, not both"),
    (
        ["--set=existingSecret=a,serviceMonitor.enabled=true,podMonitor.enabled=true"],
        "enable serviceMonitor or podMonitor, not both",
    ),
    (["--set=existingSecret=a,replicas=2"], "additional properties 'replicas' not allowed"),
    (["--set=existingSecret=a,service.port=0"], "at '/service/port'"),
    (["--set=existingSecret=a,config.storage.path=/tmp/x"], "at '/config/storage'"),
    (["--set=existingSecret=a,log.level=loud"], "at '/log/level'"),
]


def secrets_of(section: type[Section]) -> Iterator[str]:
    """The keys whose value is a secret, in this kind of section and those derived from it.

    Headers are left out: most of them are none.
    """
    if section is not HeaderValue:
        yield from (key.inline for key in section.SECRETS)
    for each in section.__subclasses__():
        yield from secrets_of(each)


PLACES = {"api_key": "accounts[0]", "password": "receivers[0].basic_auth", "heartbeat_url": ""}


@pytest.mark.parametrize("key", sorted({*secrets_of(Section)}))
def test_a_secret_in_the_configuration_is_refused(home, key):
    path = ".".join(filter(None, ("config", PLACES.get(key, "receivers[0]"), key)))
    for form, reason in (("", f"read {key}: give it in secrets"), ("_file", "")):
        flags = ("--set=existingSecret=a", f"--set={path}{form}=value-of-it")
        done = helm(home, "template", "watch", CHART, *flags)
        assert (done.returncode != 0, reason in done.stderr) == (bool(reason), True)
        assert "value-of-it" not in done.stderr


def closed(node: object) -> Iterator[bool]:
    """Yield of each object with named properties whether others are refused."""
    if isinstance(node, dict):
        if "properties" in node and node.get("type") == "object":
            yield node.get("additionalProperties") is False
        node = [*node.values()]
    if isinstance(node, list):
        for each in node:
            yield from closed(each)


def test_a_misspelt_value_is_refused_wherever_values_have_names():
    found = [*closed(json.loads((CHART / "values.schema.json").read_text(encoding="utf-8")))]
    assert len(found) > 10
    assert all(found)


@pytest.mark.parametrize(("flags", "reason"), REFUSED)
def test_values_that_cannot_work_are_refused_with_the_reason(home, flags, reason):
    done = helm(home, "template", "watch", CHART, *flags)
    assert done.returncode != 0
    assert reason in done.stderr
