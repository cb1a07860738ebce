"""The configuration in force as a YAML document, with secrets masked."""

from pathlib import Path
from typing import Any, Final

import yaml

from exporter.config.models import Config, events_of

MASK: Final = "<secret>"
_HEAD: Final = """\
# What is in force: the file, the environment where it is silent, and the defaults.
# A key that is not here is not set.
"""


def render_masked(config: Config) -> str:
    """Return the configuration as a YAML document, with every default, and MASK for each secret.

    Only the type of a value decides whether it is masked: see to_yaml, and the serialisers of
    Template and HeaderValue. Paths of files and names of variables are no secrets.
    """
    receivers = tuple(
        receiver.model_copy(update={"events": events_of(receiver, config.alerts)})
        for receiver in config.receivers
    )
    keys = config.model_copy(update={"receivers": receivers}).model_dump(exclude_none=True)
    return _HEAD + to_yaml(keys)


def to_yaml(value: object, *, on_one_line: bool = False) -> str:
    """Return plain values and paths as YAML, with MASK for any other value, such as a SecretStr."""
    return yaml.dump(
        value,
        Dumper=_MaskingDumper,
        default_flow_style=on_one_line,
        sort_keys=False,
        allow_unicode=True,
        width=float("inf"),
    )


class _MaskingDumper(yaml.SafeDumper):
    """Writes plain values and paths; any other value, such as a SecretStr, as MASK.

    A list of words stands on one line; other lists are indented, as in the example.
    """

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002  # as inherited
        return True

    def represent_scalar(self, tag: str, value: Any, style: str | None = None) -> Any:
        # Unicode's own line breaks survive in double quotes only; elsewhere they become spaces.
        return super().represent_scalar(tag, value, style if value.isprintable() else '"')

    def represent_sequence(self, tag: str, sequence: Any, flow_style: bool | None = None) -> Any:  # noqa: FBT001  # as inherited
        flow_style = not any(isinstance(item, dict | list | tuple) for item in sequence)
        return super().represent_sequence(tag, sequence, flow_style)

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002, FBT001, FBT002  # as inherited
        super().increase_indent(flow, indentless=False)


def _represent_float(dumper: _MaskingDumper, value: float) -> yaml.Node:
    # 0 and not 0.0, as in a file.
    return dumper.represent_int(int(value)) if value.is_integer() else dumper.represent_float(value)


# Only these types are written. SafeDumper would also write bytes, dates and sets.
_MaskingDumper.yaml_representers = {
    plain: yaml.SafeDumper.yaml_representers[plain] for plain in (bool, int, str, list, tuple, dict)
}
_MaskingDumper.add_representer(float, _represent_float)
_MaskingDumper.add_multi_representer(Path, lambda dumper, path: dumper.represent_str(str(path)))
_MaskingDumper.add_multi_representer(object, lambda dumper, _: dumper.represent_str(MASK))
