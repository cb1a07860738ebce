"""Reads the web configuration's file, and again after a change of it or of a file that it names."""

import errno
import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from exporter.config.document import parse_yaml
from exporter.config.errors import (
    ConfigError,
    Places,
    problem_texts,
    problems_of,
    unexpected_error_text,
)
from exporter.config.load import read_file
from exporter.config.secrets import ConfigContext, file_error_text, read_bounded
from exporter.config.web import Web
from exporter.web.live_config import UnusableError, WebSettings

_OUT_OF_RESOURCES = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}


class WebFile:
    """A web configuration's file. Its methods block: call them in a thread."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._files = _ReadFiles()

    def read(self) -> WebSettings:
        """Return the settings of the file; raise ConfigError, with all mistakes and no secret."""
        self._files = _ReadFiles()
        return self._settings(read_file(self.path, self._files.read))

    def read_if_changed(self) -> WebSettings | None:
        """Return the settings if a file changed since it was read, else None.

        An empty file is refused here, but not by read(): it may be one that is being written, and
        would turn authentication off for that moment.

        Raises:
            UnusableError: with every mistake found, once for each change.
            OSError: the files cannot be looked at now; the next call tries again.
        """
        if not self._files.changed():
            return None
        before, self._files = self._files, _ReadFiles()
        try:
            content = read_file(self.path, self._files.read)
            settings = self._settings(content)
        except ConfigError as error:
            raise UnusableError(error.problems) from None
        except OSError:
            # For example, no more files can be opened: the next call must see the change again.
            self._files = before
            raise
        except Exception as error:  # the file in use stays in use
            problem = f"{self.path}: cannot be read: {unexpected_error_text(error)}"
            raise UnusableError([problem]) from error
        if not content.strip():
            raise UnusableError([f"{self.path}: is empty; write {{}} to mean it"])
        return settings

    def _settings(self, content: bytes) -> WebSettings:
        document = parse_yaml(self.path, content)
        context = ConfigContext(self.path.absolute().parent, {}, self._files.read)
        try:
            return Web.model_validate(document.values, context=context).settings
        except ValidationError as error:
            places = Places(document.values, document.line_of)
            raise ConfigError(problem_texts(problems_of(error), places)) from None


@dataclass
class _ReadFiles:
    """Reads files and notices when one of them changed.

    It compares digests, not times and sizes: two writes within a tick of the file system's clock
    look the same, and the files are small.
    """

    digests: dict[Path, tuple[int, str]] = field(default_factory=dict)

    def read(self, path: Path, limit: int) -> bytes:
        try:
            content = read_bounded(path, limit)
        except OSError as error:
            self.digests[path] = limit, file_error_text(error)
            raise
        self.digests[path] = limit, hashlib.sha256(content).hexdigest()
        return content

    def changed(self) -> bool:
        now = _ReadFiles()
        for path, (limit, _) in self.digests.items():
            try:
                now.read(path, limit)
            except OSError as error:
                if error.errno in _OUT_OF_RESOURCES:
                    raise
        return now != self
