"""The agent accepts the command line and the files of the chart's pod."""

import base64
import re
from pathlib import Path

import pytest
import trustme
from click.testing import CliRunner

from exporter.cli.commands import main
from tests.deploy.chart import CHART, RenderedChart
from tests.deploy.tools import parse_flags

MOUNTED = ("/etc/cartesia-exporter", "/run/secrets", "/certificates")


@pytest.mark.parametrize("values", ["everything", "minimal"])
def test_the_agent_accepts_its_configuration(tmp_path, values):
    rendered = RenderedChart(tmp_path, f"--values={CHART / 'ci' / f'{values}-values.yaml'}")
    root = tmp_path / "pod"
    for mount in rendered.container["volumeMounts"]:
        for name, text in files_of(rendered, mount["name"]).items():
            file = root / mount["mountPath"].lstrip("/") / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(relocate(text, root), encoding="utf-8")
    command, *flags = (relocate(argument, root) for argument in rendered.container["args"])
    parse_flags(command, *flags)
    files = [flag for flag in flags if re.match(r"--(web\.)?config\.file=", flag)]
    checked = CliRunner().invoke(main, ["check-config", *files])
    assert checked.exit_code == 0, checked.output
    assert len(files) == (2 if values == "everything" else 1)


def relocate(text: str, root: Path) -> str:
    for folder in MOUNTED:
        text = text.replace(folder, f"{root}{folder}")
    return text


def files_of(rendered: RenderedChart, volume_name: str) -> dict[str, str]:
    """Return the files of a volume; those of the user's own Secrets are examples."""
    (volume,) = (each for each in rendered.pod["volumes"] if each["name"] == volume_name)
    if "configMap" in volume:
        data: dict[str, str] = rendered.one("ConfigMap")["data"]
        return data
    name = volume.get("secret", {}).get("secretName")
    for secret in rendered.all("Secret"):
        if secret["metadata"]["name"] == name:
            return {key: base64.b64decode(text).decode() for key, text in secret["data"].items()}
    return {"cartesia": {"api-key": "sk_car_of.an_example"}, "cartesia-tls": certificate()}.get(
        name, {}
    )


def certificate() -> dict[str, str]:
    issued = trustme.CA().issue_cert("cartesia.example.com")
    (chain,) = issued.cert_chain_pems
    return {"tls.crt": chain.bytes().decode(), "tls.key": issued.private_key_pem.bytes().decode()}
