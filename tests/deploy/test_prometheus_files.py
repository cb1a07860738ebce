"""The example configurations of Prometheus load, with the rules, and say what the agent needs."""

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
def test_an_example_is_taken_with_its_rules_and_not_without(folder, name):
    promtool("check", "config", folder / name)
    (folder / "rules" / "cartesia.rules.yml").unlink()
    with pytest.raises(AssertionError, match=r"rules/cartesia\.rules\.yml"):
        promtool("check", "config", folder / name)


def test_the_example_with_tls_fits_the_example_of_a_web_configuration(folder):
    job = yaml.safe_load((folder / "prometheus.tls.yml").read_text())["scrape_configs"][0]
    web = yaml.safe_load((folder / "web-config.example.yml").read_text())
    assert job["scheme"] == "https"
    assert job["basic_auth"]["username"] in web["basic_auth_users"]
    assert "cartesia" in job["job_name"]


def test_what_is_commented_out_in_an_example_is_taken_too(folder):
    text = (folder / "prometheus.tls.yml").read_text()
    for key in ("cert_file", "key_file"):
        assert f"# {key}:" in text
        text = text.replace(f"# {key}:", f"{key}:")
    issued = trustme.CA().issue_cert("prometheus.example.com")
    issued.cert_chain_pems[0].write_to_path(folder / "prometheus.pem")
    issued.private_key_pem.write_to_path(folder / "prometheus.key.pem")
    (folder / "prometheus.tls.yml").write_text(text, encoding="utf-8")
    promtool("check", "config", folder / "prometheus.tls.yml")
