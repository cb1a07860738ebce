"""The distributions install into an empty environment and run there."""

import json
import signal
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from exporter import __version__
from tests.process.agent_process import run, started

pytestmark = pytest.mark.usefixtures("unmeasured")

ROOT = Path(__file__).parent.parent.parent
UV = str(Path(sys.executable).with_name("uv"))


def run_checked(*command: str | Path) -> None:
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def install(environment: Path, distribution: Path) -> Path:
    """Install the locked dependencies and a distribution; return the command."""
    python = environment / "bin" / "python"
    run_checked(UV, "venv", "--quiet", f"--python={sys.executable}", environment)
    locked = ("--require-hashes", f"--requirement={ROOT / 'requirements.lock'}")
    run_checked(UV, "pip", "install", "--quiet", f"--python={python}", *locked)
    run_checked(UV, "pip", "install", "--quiet", f"--python={python}", "--no-deps", distribution)
    return environment / "bin" / "cartesia-exporter"


def test_wheel_and_source_install_into_an_empty_environment_and_run(tmp_path):
    """The wheel is built from the source distribution, so that it shows missing files there."""
    folder = tmp_path / "dist"
    build(folder, tmp_path / "wheel")
    source, bill, wheel = sorted(folder.iterdir(), key=lambda path: path.suffix)
    assert source.name == f"cartesia_exporter-{__version__}.tar.gz"
    assert wheel.name == f"cartesia_exporter-{__version__}-py3-none-any.whl"

    demo_of = str(tmp_path / "wheel" / "bin" / "cartesia-exporter")
    with started(tmp_path, "demo", command=[demo_of]) as demo:
        demo.wait_for_line("^Metrics +http://")
        demo.wait_for_line("ALERT +slack: .*failed", seconds=30)
        assert demo.stop(signal.SIGINT) == 0

    command = install(tmp_path / "source", source)
    assert run(tmp_path, "--version", command=[str(command)]).stdout.split()[-1] == __version__
    assert modules(tmp_path / "source") == modules(tmp_path / "wheel") == modules(ROOT)
    assert_no_other_files(source, wheel)
    assert_lists_all_installed_packages(bill, tmp_path / "wheel")


def build(folder: Path, environment: Path) -> None:
    """Run `make sbom`: build and install the distributions, and write their bill of materials."""
    variables = (f"BIN={Path(sys.executable).parent}", f"DIST={folder}", f"INSTALLED={environment}")
    run_checked("make", "--silent", "--assume-old=.venv/dev", *variables, "sbom")


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
