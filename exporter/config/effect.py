"""The keys that are read and checked but that nothing in this version acts on."""

from collections.abc import Iterator

from exporter.config.section import Section, parts_of

# A key in its three forms is listed once, as its first.
_WITHOUT_EFFECT = frozenset(
    {
        "poll.concurrency",
        "poll.requests_per_second",
    }
)


def without_effect(config: Section) -> list[str]:
    """Return the paths of set keys that do nothing, except those set to their default."""
    return list(_walk(config, "", ""))


def _walk(section: Section, path: str, pattern: str) -> Iterator[str]:
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        default = field.get_default(call_default_factory=True, validated_data={})
        if name not in section.model_fields_set or value == default:
            continue
        if pattern + name.removesuffix("_file").removesuffix("_env") in _WITHOUT_EFFECT:
            yield path + name
            continue
        for key, part in parts_of(value):
            if isinstance(part, Section):
                yield from _walk(part, f"{path}{name}{key}.", f"{pattern}{name}{'.*' * bool(key)}.")
