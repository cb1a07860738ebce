"""A certificate authority of our own, and servers' certificates from it."""

import ssl
from pathlib import Path

import trustme


def authority(folder: Path) -> tuple[trustme.CA, Path]:
    """Make an authority; its certificate is in the file."""
    made = trustme.CA()
    folder.mkdir(exist_ok=True)
    path = folder / "ca.pem"
    made.cert_pem.write_to_path(path)
    return made, path


def server_context(issuer: trustme.CA, *hosts: str) -> ssl.SSLContext:
    """What a server needs to be one of these hosts."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    issuer.issue_cert(*hosts).configure_cert(context)
    return context
