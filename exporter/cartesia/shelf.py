"""What was read last, so that what did not change is neither decoded again nor held twice."""

from collections.abc import Iterable, Mapping
from hashlib import sha256

from exporter.cartesia.wire import Page, read_page
from exporter.core.model import FineTune


class Shelf:
    """Keeps the pages of the last complete reading by the digest of their bytes, not the bytes."""

    def __init__(self) -> None:
        self._pages: dict[bytes, Page] = {}
        self._taken: dict[bytes, Page] = {}
        self._fine_tunes: Mapping[str, FineTune] = {}

    def remember(self, fine_tunes: Iterable[FineTune]) -> None:
        """Take these for what was read last; a page with an equal one will hold the same object."""
        self._fine_tunes = {fine_tune.id: fine_tune for fine_tune in fine_tunes}

    def begin(self) -> None:
        """Begin a reading; what the last one took without being complete is forgotten."""
        self._taken = {}

    def read(self, body: bytes) -> Page:
        """Return the page in ``body``; raise PageError when it is not one. Safe in any thread."""
        digest = sha256(body).digest()
        page = self._taken.get(digest) or self._pages.get(digest) or self._shared(read_page(body))
        self._taken[digest] = page
        return page

    def _shared(self, page: Page) -> Page:
        known = self._fine_tunes
        found = ((read, known.get(read.id)) for read in page.fine_tunes)
        items = [read if before is None or before != read else before for read, before in found]
        return Page(items, page.has_more, page.size)

    def keep(self, fine_tunes: Mapping[str, FineTune]) -> None:
        """End a complete reading, of these fine-tunes: its pages replace those of the last one."""
        self._pages, self._taken, self._fine_tunes = self._taken, {}, fine_tunes
