"""The key of an account, read again for each request, and whether the API refused it."""

from hashlib import sha256

from exporter.cartesia.errors import CartesiaError
from exporter.core.secret import Secret, SecretError


class ApiKey:
    """A key that may change while it is used. Of a refused one only the digest is kept."""

    def __init__(self, secret: Secret) -> None:
        self.source = secret.source
        self._secret = secret
        self._refused: bytes | None = None

    def read(self) -> str:
        """Return the key as it is now; raise CartesiaError when it can't be read."""
        try:
            return self._secret()
        except SecretError as error:
            raise CartesiaError("unauthorized", f"there is no API key: {error}") from None

    def note(self, key: str, *, refused: bool) -> None:
        """Keep what the API thought of a key; what it takes ends every earlier refusal."""
        self._refused = _digest(key) if refused else None

    def is_refused(self) -> bool:
        """Return whether the key, read again now, is the one that the API refused last."""
        try:
            return self._refused is not None and self._refused == _digest(self._secret())
        except SecretError:
            return False


def _digest(key: str) -> bytes:
    return sha256(key.encode()).digest()
