"""Imports of libraries without what an agent does not use of them."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_FOR_TERMINALS: Final = ("httpx._main", "rich")


@contextmanager
def without_rich() -> Iterator[None]:
    """Let httpx and structlog be imported without rich, which they use for output of their own.

    An agent has no such output: it saves 0.3 s at the start and 4 MiB.
    """
    hidden = [name for name in _FOR_TERMINALS if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None: cannot be imported
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]
