"""Errors of the store."""


class StoreError(Exception):
    """The database cannot be read or written now. The text names it and the cause."""


class StoreRefusedError(StoreError):
    """The database must not be used as it is. The text says what to do; a retry does not help."""
