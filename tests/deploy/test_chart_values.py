"""Values of the chart have an effect, or are refused with the reason."""

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
from tests.deploy.chart import CHART, RenderedChart, helm

EVERYTHING = CHART / "ci" / "everything-values.yaml"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("helm")


def leaves(node: object) -> Iterator[str]:
    """Yield each text and number of a document, at any depth."""
    if isinstance(node, dict):
        node = [*node.values()]
    if isinstance(node, list):
        for each in node:
            yield from leaves(each)
    elif not isinstance(node, bool):
        yield str(node)


def test_every_value_appears_in_the_rendered_chart(home):
    rendered = RenderedChart(home, f"--values={EVERYTHING}")
    secrets = [text for each in rendered.all("Secret") for text in each["data"].values()]
    written = [*leaves(rendered.documents), *(base64.b64decode(each).decode() for each in secrets)]
    text = "\n".join(written)
    given = [*leaves(yaml.safe_load(EVERYTHING.read_text(encoding="utf-8")))]
    assert len(given) > 50
    # At least as often as among the values: one value may be contained in another.
    values = "\n".join(given)
    assert [each for each in given if text.count(each) < values.count(each)] == []


@pytest.mark.parametrize(
    ("flag", "image"),
    [
        ("image.pullPolicy=Always", f"cartesia-exporter:{__version__}"),
        ("image.tag=edge", "cartesia-exporter:edge"),
        (f"image.digest=sha256:{'0' * 64}", f"cartesia-exporter@sha256:{'0' * 64}"),
    ],
)
def test_the_image_has_the_charts_version_or_the_given_tag_or_digest(home, flag, image):
    rendered = RenderedChart(home, "--set=existingSecret=a", f"--set={flag}")
    assert rendered.container["image"] == image


@pytest.mark.parametrize(
    ("change", "restarted"),
    [
        ("config.poll.interval=2m", True),
        ("webConfig.rate_limit.burst=20", True),
        ("webConfig.basic_auth_users.b=another", False),
    ],
)
def test_only_settings_read_at_start_restart_the_pod(home, change, restarted):
    given = ["--set=existingSecret=a", "--set=webConfig.basic_auth_users.b=one"]
    checksums = set()
    for flags in (given, [*given, f"--set={change}"]):
        template = RenderedChart(home, *flags).one("Deployment")["spec"]["template"]
        checksums.add(template["metadata"]["annotations"]["checksum/config"])
    assert len(checksums) == 1 + restarted


REFUSED: list[Any] = [
    ([], "the API key is missing"),
    (["--set=existingSecret=a,secrets.api-key=b"], "set secrets or existingSecret, not both"),
    (
        ["--set=existingSecret=a,serviceMonitor.enabled=true,podMonitor.enabled=true"],
        "enable serviceMonitor or podMonitor, not both",
    ),
    (["--set=existingSecret=a,replicas=2"], "replicas share a database: set config.storage.url"),
    (
        ["--set=existingSecret=a,config.storage.url=postgresql://u:secret@db/cartesia"],
        "at '/config/storage/url'",
    ),
    (["--set=existingSecret=a,service.port=0"], "at '/service/port'"),
    (["--set=existingSecret=a,config.storage.path=/tmp/x"], "at '/config/storage'"),
    (["--set=existingSecret=a,log.level=loud"], "at '/log/level'"),
]


def secrets_of(section: type[Section]) -> Iterator[str]:
    """Yield the secret keys of a section and its subclasses; most headers are no secrets."""
    if section is not HeaderValue:
        yield from (key.inline for key in section.SECRETS)
    for each in section.__subclasses__():
        yield from secrets_of(each)


SECTION_OF_KEY = {
    "api_key": "accounts[0]",
    "password": "receivers[0].basic_auth",
    "heartbeat_url": "",
}


@pytest.mark.parametrize("key", sorted({*secrets_of(Section)}))
def test_a_secret_in_the_configuration_is_refused(home, key):
    path = ".".join(filter(None, ("config", SECTION_OF_KEY.get(key, "receivers[0]"), key)))
    for form, reason in (("", f"read {key}: put it into secrets"), ("_file", "")):
        flags = ("--set=existingSecret=a", f"--set={path}{form}=value-of-it")
        done = helm(home, "template", "watch", CHART, *flags)
        assert (done.returncode != 0, reason in done.stderr) == (bool(reason), True)
        assert "value-of-it" not in done.stderr


def objects_closed(node: object) -> Iterator[bool]:
    """Yield for each object with named properties whether it refuses other ones."""
    if isinstance(node, dict):
        if "properties" in node and node.get("type") == "object":
            yield node.get("additionalProperties") is False
        node = [*node.values()]
    if isinstance(node, list):
        for each in node:
            yield from objects_closed(each)


def test_the_schema_refuses_unknown_names():
    found = [
        *objects_closed(json.loads((CHART / "values.schema.json").read_text(encoding="utf-8")))
    ]
    assert len(found) > 10
    assert all(found)


@pytest.mark.parametrize(("flags", "reason"), REFUSED)
def test_invalid_values_are_refused_with_the_reason(home, flags, reason):
    done = helm(home, "template", "watch", CHART, *flags)
    assert done.returncode != 0
    assert reason in done.stderr
