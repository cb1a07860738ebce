"""The Compose files are valid, and their services accept their configurations."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from exporter.cli.commands import main
from exporter.config import load
from tests.deploy.schemas import assert_files_conform
from tests.deploy.tools import DEPLOY, amtool, assert_tool_passes, parse_flags

COMPOSE = DEPLOY / "compose"
FILES = tuple(COMPOSE / f"compose{name}.yaml" for name in ("", ".api", ".replicas"))


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


SERVICES = read(FILES[0])["services"]
MOUNTS = [
    mount.split(":")
    for file in FILES
    for service in read(file)["services"].values()
    for mount in service.get("volumes", ())
    if mount.startswith(".")
]


def test_the_files_match_the_compose_specification():
    assert_files_conform("compose-spec", *FILES)


def test_mounted_files_exist_and_are_read_only():
    assert [source for source, *_ in MOUNTS if not (COMPOSE / source).exists()] == []
    assert {mode for _, _, mode in MOUNTS} == {"ro"}


def test_every_volume_is_declared_and_used():
    for files in (FILES[:1], FILES[1:2], FILES[2:]):
        used = {
            mount.partition(":")[0]
            for file in files
            for service in read(file)["services"].values()
            for mount in service.get("volumes", ())
            if not mount.startswith(".")
        }
        assert used == {name for file in files for name in read(file)["volumes"]}


def test_every_foreign_image_is_pinned():
    images = {
        name: service["image"] for name, service in SERVICES.items() if "build" not in service
    }
    assert sorted(images) == ["alertmanager", "grafana", "prometheus"]
    for image in images.values():
        assert re.fullmatch(r"docker\.io/[a-z/]+:v?\d+\.\d+\.\d+", image)


def test_ports_are_local_and_containers_have_no_privileges():
    replicas = read(FILES[2])["services"]
    for service in (*SERVICES.values(), replicas["standby"], replicas["database"]):
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]


@pytest.mark.parametrize("service", ["exporter", "simulator"])
def test_the_commands_are_valid(service):
    name, *flags = SERVICES[service]["command"]
    flags = [flag for flag in flags if not flag.startswith("--config.file=")]
    parse_flags(name, *flags)


@pytest.mark.parametrize("name", ["simulator", "api", "replicas"])
def test_the_agent_accepts_its_configuration(name):
    file = COMPOSE / f"exporter.{name}.yaml"
    key = {"CARTESIA_API_KEY": "sk_car_of.an_example"}
    checked = CliRunner(env=key).invoke(main, ["check-config", f"--config.file={file}"])
    assert checked.exit_code == 0, checked.output
    assert [each.type for each in load(file, key).receivers] == ["alertmanager"]


def test_every_host_and_port_in_a_configuration_is_a_service():
    texts = [path.read_text(encoding="utf-8") for path in COMPOSE.rglob("*.y*ml")]
    hosts = {
        found for text in texts for found in re.findall(r'[/"]([a-z]+):(\d{4,5})(?=["\]/\n])', text)
    }
    assert hosts == {
        ("simulator", "10061"),
        ("exporter", "10060"),
        ("standby", "10060"),
        ("alertmanager", "9093"),
        ("prometheus", "9090"),
    } | {("localhost", port) for port in ("10060", "10062", "9090", "9093")}


def test_prometheus_accepts_its_configuration_and_the_rules(tmp_path):
    inside = {target: COMPOSE / source for source, target, _ in MOUNTS}
    for target, source in inside.items():
        if target.startswith("/etc/prometheus/"):
            copy = tmp_path / target.removeprefix("/etc/prometheus/")
            copy.parent.mkdir(exist_ok=True)
            shutil.copy(source, copy)
    assert len(list(tmp_path.rglob("*.yml"))) == 2
    for file in (COMPOSE / "prometheus.yml", COMPOSE / "prometheus.replicas.yml"):
        shutil.copy(file, tmp_path / "prometheus.yml")
        assert_tool_passes(
            "promtool", "check", "config", tmp_path / "prometheus.yml", package="prometheus"
        )


def test_alertmanager_accepts_its_configuration():
    file = COMPOSE / "alertmanager.yml"
    amtool("check-config", file)


def test_grafana_is_provisioned_with_prometheus_and_the_dashboard():
    (source,) = read(COMPOSE / "grafana/provisioning/datasources/prometheus.yml")["datasources"]
    (folder,) = read(COMPOSE / "grafana/provisioning/dashboards/cartesia.yml")["providers"]
    (mounted,) = [target for _, target, _ in MOUNTS if target.endswith(".json")]
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert source["type"] == "prometheus"
    (link,) = source["jsonData"]["exemplarTraceIdDestinations"]
    assert link["name"] == "fine_tune_id"
    assert "--enable-feature=exemplar-storage" in SERVICES["prometheus"]["command"]
    assert mounted == home
    assert mounted.startswith(folder["options"]["path"] + "/")
