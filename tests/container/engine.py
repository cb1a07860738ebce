"""Builds images and runs containers, with Docker or with buildah and podman."""

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
    """Command prefixes for building images and running containers."""

    building: tuple[str, ...]
    running: tuple[str, ...]
    run_flags: tuple[str, ...] = ("--network=none",)

    def build(self, **arguments: str) -> None:
        given = (f"--build-arg={name}={text}" for name, text in arguments.items())
        file = ROOT / "deploy" / "docker" / "Dockerfile"
        subprocess.run(
            [*self.building, *given, f"--file={file}", f"--tag={IMAGE}", str(ROOT)], check=True
        )

    def run(self, *words: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
        done = subprocess.run(
            [*self.running, *words], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0 or not check, done.stderr
        return done

    @contextlib.contextmanager
    def container(self, *flags: str) -> Iterator[str]:
        """Start the image, restricted as in deploy/; remove the container at the end."""
        words = ("run", "--detach", *self.run_flags, *RESTRICTED, *flags, IMAGE)
        name = self.run(*words).stdout.strip()
        try:
            yield name
        finally:
            self.run("rm", "--force", name)


def find_engine() -> Engine:
    """Return buildah and podman with the images in the folder STAND_IN, or Docker without it."""
    stand_in = os.environ.get("STAND_IN", "")
    if not stand_in:
        return Engine(("docker", "build"), ("docker",))
    folder = Path(stand_in).resolve()
    storage = (f"--root={folder}/store", f"--runroot={folder}/run", "--storage-driver=overlay")
    # A build reaches no package index: pip installs from a folder of wheels.
    offline = (
        f"--volume={folder}/wheels:/wheels:ro",
        f"--volume={folder}/pip.conf:/etc/pip.conf:ro",
    )
    building = ("build", "--isolation=chroot", "--network=host", "--pull=never", "--format=docker")
    return Engine(
        ("buildah", *storage, *building, *offline),
        ("podman", "--runtime=runc", *storage, "--cgroup-manager=cgroupfs"),
        # Without systemd, health checks are not started and limits cannot be raised.
        ("--network=none", "--no-healthcheck", *LIMITS),
    )
