"""What was read last, so that what did not change is neither decoded again nor held twice."""

from collections.abc import Mapping
from hashlib import sha256
from types import MappingProxyType
from typing import Final

from msgspec.structs import replace

from exporter.cartesia.wire import Page, read_page
from exporter.core.model import FineTune, Known

NOTHING: Final[Mapping[str, Known]] = MappingProxyType({})


class Shelf:
    """Keeps the pages of the last complete reading by the digest of their bytes, not the bytes."""

    def __init__(self) -> None:
        self._pages: dict[bytes, Page] = {}
        self._taken: dict[bytes, Page] = {}
        self._known = NOTHING

    def clear(self) -> None:
        """Forget the pages: each will be decoded again."""
        self._pages = {}

    def begin(self, known: Mapping[str, Known] = NOTHING) -> None:
        """Begin a reading; what the last one took without being complete is forgotten.

        A page with a fine-tune that equals a ``known`` one will hold the same object.
        """
        self._taken, self._known = {}, known

    def read(self, body: bytes) -> Page:
        """Return the page in ``body``; raise PageError when it is not one. Safe in any thread."""
        digest = sha256(body).digest()
        page = self._taken.get(digest) or self._pages.get(digest) or self._shared(read_page(body))
        self._taken[digest] = page
        return page

    def _shared(self, page: Page) -> Page:
        items = [_shared(read, self._known.get(read.id)) for read in page.fine_tunes]
        return Page(items, page.has_more, page.size)

    def keep(self) -> None:
        """End a complete reading: its pages replace those of the last one."""
        self._pages, self._taken, self._known = self._taken, {}, NOTHING


def _shared(read: FineTune, known: Known | None) -> FineTune:
    if known is None:
        return read
    before = known.fine_tune
    # The id too: it is a key elsewhere, and would be held there as it was read first.
    return before if before == read else replace(read, id=before.id)
