"""The distributions install into empty environments and run there."""

import json
import signal
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email import message_from_bytes
from pathlib import Path

import cyclonedx.schema
import jsonschema_rs  # of schemathesis
import pytest

from exporter import __version__
from exporter.cli.version import version_text
from tests.docs.distribution import ROOT, UV, installed, run_checked, size
from tests.process.agent_process import run, started

pytestmark = [pytest.mark.usefixtures("unmeasured"), pytest.mark.timeout(300)]

MAX_INSTALLED = 84_000_000
"""Bytes of an installation with all extras, without most compiled modules."""


@pytest.mark.long
def test_wheel_and_source_install_into_an_empty_environment_and_run(tmp_path):
    """The wheel is built from the source distribution, so that it shows missing files there."""
    folder = tmp_path / "dist"
    build(folder, tmp_path / "wheel")
    source, bill, wheel = sorted(folder.iterdir(), key=lambda path: path.suffix)
    assert source.name == f"cartesia_exporter-{__version__}.tar.gz"
    assert wheel.name == f"cartesia_exporter-{__version__}-py3-none-any.whl"

    install_with_extras(tmp_path / "source", source)
    command = installed(tmp_path / "source")
    # The commit of the tree is kept through the source distribution.
    assert run(tmp_path, "--version", command=command).stdout == (
        f"cartesia-exporter {version_text(__version__)}\n"
    )
    done = run(tmp_path, "check-config", command=command, CARTESIA_EXPORTER_SLACK_URL="https://a/b")
    assert (done.returncode, done.stderr) == (0, "")
    with started(tmp_path, "demo", command=command) as demo:
        demo.wait_for_line("^Metrics +http://")
        demo.wait_for_line("ALERT +slack: .*failed")
        assert demo.stop(signal.SIGINT) == 0
    assert size(tmp_path / "source") < MAX_INSTALLED
    assert modules(tmp_path / "source") == modules(tmp_path / "wheel") == modules(ROOT)
    assert_no_other_files(source, wheel)
    assert_has_the_addresses_of_the_project(wheel)
    assert_conforms_to_the_schema(bill)
    assert_lists_all_installed_packages(bill, tmp_path / "wheel")


def build(folder: Path, environment: Path) -> None:
    """Run `make sbom`: build and install the distributions, and write their bill of materials.

    Its validation takes 9 s; assert_conforms_to_the_schema() does the same.
    """
    variables = (f"BIN={Path(sys.executable).parent}", f"DIST={folder}", f"INSTALLED={environment}")
    flags = ("--silent", "--assume-old=.venv/dev", "VALIDATION=--no-validate")
    run_checked("make", *flags, *variables, "sbom")


def assert_conforms_to_the_schema(bill: Path) -> None:
    content = json.loads(bill.read_text(encoding="utf-8"))
    schemas = {
        path.name: json.loads(path.read_text(encoding="utf-8"))
        for path in Path(cyclonedx.schema.__file__).parent.glob("_res/*.json")
    }
    schema = schemas[f"bom-{content['specVersion']}.SNAPSHOT.schema.json"]
    named = [
        (f"http://cyclonedx.org/schema/{name}", schemas[name])
        for name in ("spdx.SNAPSHOT.schema.json", "jsf-0.82.SNAPSHOT.schema.json")
    ]
    registry = jsonschema_rs.Registry(named)
    jsonschema_rs.validator_for(schema, registry=registry).validate(content)


def install_with_extras(environment: Path, distribution: Path) -> None:
    """Install a distribution with all extras and the packages that an index has now."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    run_checked(UV, "venv", "--quiet", f"--python={sys.executable}", environment)
    python = f"--python={environment / 'bin' / 'python'}"
    package = f"cartesia-exporter[{','.join(extras)}] @ {distribution.as_uri()}"
    run_checked(UV, "pip", "install", "--quiet", python, package)


def assert_lists_all_installed_packages(bill: Path, environment: Path) -> None:
    content = json.loads(bill.read_text(encoding="utf-8"))
    component = content["metadata"]["component"]
    assert (component["name"], component["version"]) == ("cartesia-exporter", __version__)
    named = {f"{each['name']}=={each['version']}".lower() for each in content["components"]}
    freeze = [UV, "pip", "freeze", f"--python={environment / 'bin' / 'python'}"]
    frozen = subprocess.run(freeze, capture_output=True, text=True, check=True).stdout.lower()
    lines = {line.replace("-", "_") for line in frozen.splitlines() if "cartesia" not in line}
    assert {line.replace("-", "_") for line in named} == lines != set()
    assert all(each["licenses"] for each in content["components"])


def modules(environment: Path) -> set[str]:
    (package,) = [
        path
        for path in (
            environment / "exporter",
            *environment.glob("lib/python*/site-packages/exporter"),
        )
        if path.is_dir()
    ]
    return {
        str(path.relative_to(package)) for path in package.rglob("*.py*") if path.suffix != ".pyc"
    }


def assert_no_other_files(source: Path, wheel: Path) -> None:
    """No state, key or cache of the build folder is included."""
    with zipfile.ZipFile(wheel) as files:
        assert {name.split("/")[0] for name in files.namelist()} == {
            "exporter",
            f"cartesia_exporter-{__version__}.dist-info",
        }
    with tarfile.open(source) as archive:
        top = {name.split("/")[1] for name in archive.getnames()}
    assert not top & {".git", ".venv", "build", "data", "dist"}


def assert_has_the_addresses_of_the_project(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as files:
        metadata = files.read(f"cartesia_exporter-{__version__}.dist-info/METADATA")
    urls = message_from_bytes(metadata).get_all("Project-URL", [])
    assert {url.split(", ")[0] for url in urls} >= {"Documentation", "Source", "Issues"}
