"""Why the state could not be read or written."""


class StoreError(Exception):
    """The state could not be read or written; the text says which file and what to look at."""


class StoreRefusedError(StoreError):
    """The state must not be used as it is; starting again will not help until somebody acts."""
