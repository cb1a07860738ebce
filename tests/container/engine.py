"""Docker, or the programs that do the same without an engine, driven as a person would."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
IMAGE = "localhost/cartesia-exporter:test"
LIMITS = ("--ulimit=nofile=1024:1024", "--ulimit=nproc=4096:4096")
RESTRICTED = ("--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--tmpfs=/tmp")


@dataclass(frozen=True)
class Engine:
    """How images are built and containers are run here; both are the beginning of a command."""

    building: tuple[str, ...]
    running: tuple[str, ...]
    run_flags: tuple[str, ...] = ("--network=none",)

    def build(self, **arguments: str) -> None:
        given = (f"--build-arg={name}={text}" for name, text in arguments.items())
        file = ROOT / "deploy" / "docker" / "Dockerfile"
        subprocess.run(
            [*self.building, *given, f"--file={file}", f"--tag={IMAGE}", str(ROOT)], check=True
        )

    def do(self, *words: str, ok: bool = True) -> "subprocess.CompletedProcess[str]":
        done = subprocess.run(
            [*self.running, *words], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0 or not ok, done.stderr
        return done

    @contextlib.contextmanager
    def container(self, *flags: str) -> Iterator[str]:
        """Start the image, restricted as deploy/ does it; the container is gone when this ends."""
        words = ("run", "--detach", *self.run_flags, *RESTRICTED, *flags, IMAGE)
        name = self.do(*words).stdout.strip()
        try:
            yield name
        finally:
            self.do("rm", "--force", name)


def found() -> Engine:
    """The stand-in's programs when STAND_IN names its folder, else Docker."""
    stand_in = os.environ.get("STAND_IN", "")
    if not stand_in:
        return Engine(("docker", "build"), ("docker",))
    folder = Path(stand_in).resolve()
    places = (f"--root={folder}/store", f"--runroot={folder}/run", "--storage-driver=overlay")
    # There is neither an index nor the machine's certificates in there: pip is told of the wheels.
    offline = (
        f"--volume={folder}/wheels:/wheels:ro",
        f"--volume={folder}/pip.conf:/etc/pip.conf:ro",
    )
    building = ("build", "--isolation=chroot", "--network=host", "--pull=never", "--format=docker")
    return Engine(
        ("buildah", *places, *building, *offline),
        ("podman", "--runtime=runc", *places, "--cgroup-manager=cgroupfs"),
        # Without systemd nobody starts health checks, and limits cannot be raised.
        ("--network=none", "--no-healthcheck", *LIMITS),
    )
