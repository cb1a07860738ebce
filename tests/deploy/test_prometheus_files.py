"""The example configurations of Prometheus are valid together with the rules."""

import shutil
from pathlib import Path

import pytest
import trustme
import yaml

from tests.deploy.tools import promtool

FOLDER = Path(__file__).parent.parent.parent / "deploy" / "prometheus"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(FOLDER, tmp_path / "prometheus"))


@pytest.mark.parametrize("name", ["prometheus.yml", "prometheus.tls.yml"])
def test_an_example_is_valid_with_its_rules_and_invalid_without(folder, name):
    promtool("check", "config", folder / name)
    (folder / "rules" / "cartesia.rules.yml").unlink()
    with pytest.raises(AssertionError, match=r"rules/cartesia\.rules\.yml"):
        promtool("check", "config", folder / name)


def test_the_tls_example_matches_the_web_configuration_example(folder):
    job = yaml.safe_load((folder / "prometheus.tls.yml").read_text())["scrape_configs"][0]
    web = yaml.safe_load((folder / "web-config.example.yml").read_text())
    assert job["scheme"] == "https"
    assert job["basic_auth"]["username"] in web["basic_auth_users"]
    assert "cartesia" in job["job_name"]


def test_commented_out_lines_of_an_example_are_valid(folder):
    text = (folder / "prometheus.tls.yml").read_text()
    for key in ("cert_file", "key_file"):
        assert f"# {key}:" in text
        text = text.replace(f"# {key}:", f"{key}:")
    issued = trustme.CA().issue_cert("prometheus.example.com")
    issued.cert_chain_pems[0].write_to_path(folder / "prometheus.pem")
    issued.private_key_pem.write_to_path(folder / "prometheus.key.pem")
    (folder / "prometheus.tls.yml").write_text(text, encoding="utf-8")
    promtool("check", "config", folder / "prometheus.tls.yml")
