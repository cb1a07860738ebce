"""The Helm chart, rendered by Helm."""

import os
import subprocess
from pathlib import Path
from typing import Any

import yaml

from tests.deploy.tools import DEPLOY
from tests.programs import required

CHART = DEPLOY / "helm" / "cartesia-exporter"
VALUES = sorted((CHART / "ci").glob("*-values.yaml"))
OPERATOR = ("PodMonitor", "PrometheusRule", "ServiceMonitor")
"""Kinds of the Prometheus Operator, which are not part of Kubernetes."""


def helm(home: Path, *arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    homes = {f"HELM_{name}_HOME": str(home / name) for name in ("CACHE", "CONFIG", "DATA")}
    hint = "make .venv/helm, on Linux and x86-64; elsewhere install Helm 3 or 4"
    return subprocess.run(
        [required("helm", otherwise=hint), *arguments],
        env={"PATH": os.environ["PATH"], "HOME": str(home), **homes},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


class RenderedChart:
    """The documents of the rendered chart."""

    def __init__(self, home: Path, *flags: str) -> None:
        done = helm(home, "template", "watch", CHART, "--namespace=voices", *flags)
        assert done.returncode == 0, done.stderr
        self.documents: list[dict[str, Any]] = list(yaml.safe_load_all(done.stdout))

    def all(self, kind: str) -> list[dict[str, Any]]:
        return [document for document in self.documents if document["kind"] == kind]

    def one(self, kind: str) -> Any:
        (document,) = self.all(kind)
        return document

    @property
    def pod(self) -> Any:
        return self.one("Deployment")["spec"]["template"]["spec"]

    @property
    def container(self) -> Any:
        (container,) = self.pod["containers"]
        return container
