"""Base class of the sections of a configuration: reports all mistakes, resolves secrets."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, ClassVar, Self

from msgspec import Struct
from pydantic import (
    BaseModel,
    ConfigDict,
    ModelWrapValidatorHandler,
    PrivateAttr,
    ValidationError,
    ValidationInfo,
    model_validator,
)

from exporter.config.errors import MAX_PROBLEMS, Problem, problems_of, suggest, validation_error
from exporter.config.secrets import (
    ConfigContext,
    EnvironmentSecret,
    FileSecret,
    TextSecret,
    context_of,
    to_path,
)
from exporter.config.types import Check, looks_like_secret
from exporter.core.secret import Secret, SecretError


class SecretKey(Struct, frozen=True):
    """The keys of a secret, one for each of its three forms, and the check of its value.

    Attributes:
        inline: the key whose value is the secret; it also names the secret.
        file: the key whose value is a path.
        env: the key whose value is the name of a variable.
        check: refuses a value by raising ValueError.
        check_http: replaces check in a section with allow_http: true.
        required: exactly one form must be given, otherwise at most one.
    """

    inline: str
    file: str
    env: str
    check: Check
    check_http: Check | None = None
    required: bool = True

    def build(
        self, form: str, value: str, given: Mapping[str, Any], context: ConfigContext
    ) -> Secret:
        """Return the secret that ``value``, in one form, refers to; raise ValueError if none."""
        relaxed = self.check_http if given.get("allow_http") is True else None
        check = relaxed or self.check
        if form == self.inline:
            return TextSecret(value, form, check)
        if form == self.file:
            return FileSecret(context.folder / to_path(value), check)
        if not (value.isascii() and value.isidentifier()) or looks_like_secret(value):
            raise ValueError("must be the name of an environment variable")
        return EnvironmentSecret(value, context.environ, check)


def secret_key(name: str, check: Check, **rules: Any) -> SecretKey:
    """Return the SecretKey with the forms NAME, NAME_file and NAME_env."""
    return SecretKey(name, f"{name}_file", f"{name}_env", check, **rules)


class Section(BaseModel):
    """A mapping in the file. A key whose value is null counts as absent."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        hide_input_in_errors=True,
    )
    SECRETS: ClassVar[tuple[SecretKey, ...]] = ()
    EXTRA_KEYS: ClassVar[Mapping[str, re.Pattern[str]]] = {}
    """Patterns of the keys that a section with ``extra="allow"`` takes beside its own, by how the
    documents write them."""

    _secrets: dict[str, Secret] = PrivateAttr(default_factory=dict)

    @model_validator(mode="wrap")
    @classmethod
    def _report_all(
        cls, data: Any, handler: ModelWrapValidatorHandler[Self], info: ValidationInfo
    ) -> Self:
        if not isinstance(data, dict):
            return handler(data)
        given = {
            key: value for key, value in data.items() if value is not None or not cls.takes(key)
        }
        secrets: dict[str, Secret] = {}
        problems = [*cls.raw_problems(given), *cls._resolve(given, context_of(info), secrets)]
        try:
            section = handler({key: value for key, value in given.items() if cls.takes(key)})
        except ValidationError as error:
            problems += problems_of(error)
        if problems:
            raise validation_error(cls.__name__, problems)
        section._secrets.update(secrets)  # noqa: SLF001  # an instance of this class
        return section

    @classmethod
    def takes(cls, key: object) -> bool:
        """Return whether the section has a key of this name."""
        if not isinstance(key, str):
            return False
        extra = cls.EXTRA_KEYS.values()
        return key in cls.model_fields or any(each.fullmatch(key) for each in extra)

    @classmethod
    def raw_problems(cls, given: Mapping[Any, Any]) -> Iterator[Problem]:
        """Yield the problems of the mapping itself; its values are validated later."""
        allowed = [*cls.model_fields, *cls.EXTRA_KEYS]
        unknown = [key for key in given if not cls.takes(key)]
        for n, key in enumerate(unknown):
            similar = suggest(key, allowed) if n < MAX_PROBLEMS else ""
            hint = similar or f"; the keys here are {', '.join(allowed)}"
            yield (str(key),), f"unknown key{hint}"

    @classmethod
    def _resolve(
        cls, given: Mapping[str, Any], context: ConfigContext, secrets: dict[str, Secret]
    ) -> Iterator[Problem]:
        for key in cls.SECRETS:
            names = (key.inline, key.file, key.env)
            forms = [name for name in names if name in given]
            if len(forms) > 1:
                yield (forms[1],), f"is given together with {forms[0]}; keep one of them"
            elif forms and isinstance(given[forms[0]], str):
                try:
                    secret = key.build(forms[0], given[forms[0]], given, context)
                    if context.read_secrets:
                        secret()
                    secrets[key.inline] = secret
                except (SecretError, ValueError) as error:
                    yield (forms[0],), str(error).removeprefix(f"{forms[0]} ")
            elif not forms and key.required:
                yield (key.inline,), f"missing; give one of {', '.join(names)}"

    @property
    def secrets(self) -> Mapping[str, Secret]:
        """The secrets that are given, by key without _file or _env."""
        return self._secrets

    def set_secret_sources(self, path: str = "") -> None:
        """Prefix the sources of all secrets in this section with its ``path`` in the file."""
        for name, secret in self._secrets.items():
            if isinstance(secret, TextSecret):
                self._secrets[name] = replace(secret, source=f"{path}{name}")
        for name in type(self).model_fields:
            for suffix, item in items_of(getattr(self, name)):
                if isinstance(item, Section):
                    item.set_secret_sources(f"{path}{name}{suffix}.")


def items_of(value: object) -> Iterator[tuple[str, object]]:
    """Yield the items of a tuple or a dict after `[NAME]` or `.KEY`; another value after ``.

    An item of a tuple that has no name is named by its index.
    """
    if isinstance(value, tuple):
        yield from ((f"[{getattr(item, 'name', n)}]", item) for n, item in enumerate(value))
    elif isinstance(value, dict):
        yield from ((f".{key}", item) for key, item in value.items())
    else:
        yield "", value
