"""The YAML, JSON and Python in the documents is valid, and so are the names in their sentences."""

import json
import re
import subprocess
from typing import Any

import pytest
import yaml

from exporter.config import load
from exporter.config.models import Config
from tests.docs.documents import CodeBlock, code_blocks, documents, without_code_blocks
from tests.docs.test_documented import documented_metrics
from tests.docs.test_documents import KEYS
from tests.process.agent_process import API_KEY
from tests.programs import required

BLOCKS = list(code_blocks())
LANGUAGES = {"", "dockerfile", "json", "promql", "python", "text", "yaml"}
OTHER_PROGRAMS = {"scrape_configs", "inhibit_rules", "datasources", "apiVersion"}
"""First keys of the files of Prometheus, Alertmanager, Grafana and Kubernetes."""

RECEIVERS = {
    "slack": {"type": "slack", "name": "example", "url": "https://hooks.slack.example/s3cret"},
    "webhook": {"type": "webhook", "name": "example", "url": "https://hooks.example/s3cret"},
}


def blocks(language: str) -> list[Any]:
    return [
        pytest.param(block, id=f"{block.document}:{block.line}")
        for block in BLOCKS
        if block.language == language
    ]


def test_every_language_is_checked():
    assert {block.language for block in BLOCKS} == LANGUAGES


@pytest.mark.parametrize("block", blocks("yaml"))
def test_yaml_is_valid_and_a_part_of_a_configuration_can_be_loaded(block, tmp_path):
    snippet = yaml.safe_load(block.text)
    if OTHER_PROGRAMS & snippet.keys():
        return
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(with_files(configuration_of(snippet), tmp_path)))
    assert load(file, {"CARTESIA_API_KEY": API_KEY}).accounts


def configuration_of(snippet: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration with a snippet, which may have keys of a receiver alone."""
    if Config.model_fields.keys() & snippet.keys():
        return snippet
    # Account labels that a pattern names have to exist.
    accounts = [{"api_key_env": "CARTESIA_API_KEY", "labels": {"team": "voices"}}]
    kind = "webhook" if "template" in snippet else "slack"
    receiver = RECEIVERS[kind] | snippet
    if "template" in snippet:
        receiver["format"] = "template"
    return {"accounts": accounts, "receivers": [receiver]}


def with_files(value: Any, folder: Any) -> Any:
    """Return a value of YAML in which the files of secrets exist."""
    if isinstance(value, list):
        return [with_files(each, folder) for each in value]
    if not isinstance(value, dict):
        return value
    replaced = {}
    for key, each in value.items():
        if str(key).endswith("_file") or key == "file":
            file = folder / each.replace("/", "_")
            file.write_text("https://hooks.example/s3cret")
            replaced[key] = str(file)
        else:
            replaced[key] = with_files(each, folder)
    return replaced


def test_the_scrape_configuration_of_the_readme_is_valid(tmp_path):
    [block] = [each for each in BLOCKS if each.text.startswith("scrape_configs:")]
    assert block.document == "README.md"
    file = tmp_path / "prometheus.yml"
    file.write_text(block.text)
    promtool = required("promtool", package="prometheus")
    done = subprocess.run([promtool, "check", "config", file], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("block", blocks("json"))
def test_json_is_valid(block: CodeBlock):
    json.loads(block.text)


@pytest.mark.parametrize("block", blocks("python"))
def test_python_is_valid(block: CodeBlock):
    compile(block.text, block.document, "exec")


@pytest.mark.parametrize("document", documents())
def test_keys_and_metrics_that_are_named_exist(document):
    text = without_code_blocks(documents()[document])
    keys = {
        f"{section}.{key}"
        for section, rows in KEYS.items()
        for cells in rows
        for key in re.findall(r"`([^`]+)`", cells[0])
    }
    named = re.findall(r"`((?:poll|metrics|alerts|storage)\.[a-z_]+)(?=[`.:])", text)
    assert {*named} - keys == set()
    metrics = {row[0].strip("`") for row in documented_metrics()}
    named = re.findall(r"`(cartesia_\w+?)(?:_bucket)?\b(?!-)", text)
    assert {*named} - metrics == set()
