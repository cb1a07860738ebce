"""What would be published installs into an empty environment, and runs there."""

import signal
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

from exporter import __version__
from tests.process.agent import run, started

ROOT = Path(__file__).parent.parent
UV = str(Path(sys.executable).with_name("uv"))


def done(*command: str | Path) -> None:
    ended = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


def installed(environment: Path, distribution: Path) -> Path:
    """An environment with the locked dependencies and the distribution; its command."""
    python = environment / "bin" / "python"
    done(UV, "venv", "--quiet", f"--python={sys.executable}", environment)
    locked = ("--require-hashes", f"--requirement={ROOT / 'requirements.lock'}")
    done(UV, "pip", "install", "--quiet", f"--python={python}", *locked)
    done(UV, "pip", "install", "--quiet", f"--python={python}", "--no-deps", distribution)
    return environment / "bin" / "cartesia-exporter"


def test_wheel_and_source_install_into_an_empty_environment_and_run(tmp_path):
    """The wheel is made out of the source distribution, so that nothing is missing in that one."""
    folder = tmp_path / "dist"
    done(sys.executable, "-m", "build", "--no-isolation", f"--outdir={folder}", ROOT)
    source, wheel = sorted(folder.iterdir(), key=lambda path: path.suffix)
    assert source.name == f"cartesia_exporter-{__version__}.tar.gz"
    assert wheel.name == f"cartesia_exporter-{__version__}-py3-none-any.whl"

    with started(tmp_path, "demo", command=[str(installed(tmp_path / "wheel", wheel))]) as demo:
        demo.line("^Metrics +http://")
        demo.line("ALERT +slack: Watching the fine-tunes of account demo")
        assert demo.stop(signal.SIGINT) == 0

    command = installed(tmp_path / "source", source)
    assert run(tmp_path, "--version", command=[str(command)]).stdout.split()[-1] == __version__
    assert modules(tmp_path / "source") == modules(tmp_path / "wheel") == modules(ROOT)
    assert_nothing_else(source, wheel)


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


def assert_nothing_else(source: Path, wheel: Path) -> None:
    """No state, key or cache of the folder that it was made in."""
    with zipfile.ZipFile(wheel) as files:
        assert {name.split("/")[0] for name in files.namelist()} == {
            "exporter",
            f"cartesia_exporter-{__version__}.dist-info",
        }
    with tarfile.open(source) as archive:
        top = {name.split("/")[1] for name in archive.getnames()}
    assert not top & {".git", ".venv", "build", "data", "dist"}
