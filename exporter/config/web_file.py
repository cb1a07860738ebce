"""The web configuration's file, read again when it, or a file that it names, changed."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from exporter.config.errors import ConfigError, problems_of, texts
from exporter.config.load import MAX_FILE_BYTES, parse
from exporter.config.secrets import os_reason, read_bounded
from exporter.config.web import Web, WebOrigin
from exporter.web.live_config import UnusableError, WebSettings


@dataclass
class _Files:
    """Reads files and remembers what they held.

    Their content is compared, not their time and size: two writes within a tick of the file
    system's clock look the same, and the files are small.
    """

    held: dict[Path, tuple[int, str]] = field(default_factory=dict)

    def read(self, path: Path, limit: int) -> bytes:
        try:
            content = read_bounded(path, limit)
        except OSError as error:
            self.held[path] = limit, os_reason(error)
            raise
        self.held[path] = limit, hashlib.sha256(content).hexdigest()
        return content

    def changed(self) -> bool:
        return any(_state(path, limit) != state for path, (limit, state) in self.held.items())


def _state(path: Path, limit: int) -> str:
    try:
        return hashlib.sha256(read_bounded(path, limit)).hexdigest()
    except OSError as error:
        return os_reason(error)


class WebFile:
    """A web configuration's file. It blocks: belongs into a thread."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._files = _Files()

    def read(self) -> WebSettings:
        """Return what the file says; ConfigError with every mistake found, none with a secret."""
        self._files = _Files()
        return self._settings(self._content())

    def newest(self) -> WebSettings | None:
        """Return what the file says when something changed since it was read, else None.

        An empty file is refused, unlike at the start: it may be one that is being written, and
        would take the passwords away for that moment.

        Raises:
            UnusableError: with every mistake found, once a change.
        """
        if not self._files.changed():
            return None
        before, self._files = self._files, _Files()
        try:
            content = self._content()
            settings = self._settings(content)
        except ConfigError as error:
            raise UnusableError(error.problems) from None
        except BaseException:
            # As when no more files can be opened: the change is still to be read.
            self._files = before
            raise
        if not content.strip():
            raise UnusableError([f"{self.path}: is empty; write {{}} to mean it"])
        return settings

    def _content(self) -> bytes:
        try:
            return self._files.read(self.path, MAX_FILE_BYTES)
        except OSError as error:
            raise ConfigError([f"{self.path}: cannot be read: {os_reason(error)}"]) from None

    def _settings(self, content: bytes) -> WebSettings:
        values = parse(self.path, content)
        origin = WebOrigin(self.path.absolute().parent, {}, self._files.read)
        try:
            return Web.model_validate(values, context=origin).settings
        except ValidationError as error:
            raise ConfigError(texts(problems_of(error), {})) from None
