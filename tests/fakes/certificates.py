"""A test certificate authority and its server certificates."""

import ssl
from pathlib import Path

import trustme


def authority(folder: Path) -> tuple[trustme.CA, Path]:
    """Create an authority; return it and the file of its certificate."""
    issuer = trustme.CA()
    folder.mkdir(exist_ok=True)
    path = folder / "ca.pem"
    issuer.cert_pem.write_to_path(path)
    return issuer, path


def server_context(issuer: trustme.CA, *hosts: str) -> ssl.SSLContext:
    """Return a TLS context with a certificate for the hosts."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    issuer.issue_cert(*hosts).configure_cert(context)
    return context
