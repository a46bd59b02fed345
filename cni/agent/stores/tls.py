"""TLS to a store, from certificates and keys as texts: their files are read like any that a user names."""

from __future__ import annotations

import os
import ssl


def context_of(ca: str, identity: str) -> ssl.SSLContext:
    """Returns the context of a client. Raises OSError, ValueError.

    `ca`: the certificates to trust, empty for those of the system; `identity`: certificate and key, or empty. All PEM.
    """
    try:
        context = ssl.create_default_context(cadata=ca.encode("ascii", "replace").decode() or None)
    except ssl.SSLError as error:
        raise ValueError(f"CA certificates: {_openssl_text(error)}") from None
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # as Go: certificates without key identifiers are common
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if identity:
        _load_identity(context, identity)
    return context


def _load_identity(context: ssl.SSLContext, pem: str) -> None:
    """Loads from memory: OpenSSL reads files alone, and a key must not be stored in one."""
    descriptor = os.memfd_create("identity", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, pem.encode())
        context.load_cert_chain(f"/proc/self/fd/{descriptor}", password="")  # never asks the terminal
    except ssl.SSLError as error:
        raise ValueError(f"client certificate and key: {_openssl_text(error)}") from None
    finally:
        os.close(descriptor)


def _openssl_text(error: ssl.SSLError) -> str:
    return f"OpenSSL: {error.reason.replace('_', ' ').lower()}" if error.reason else "no PEM certificate found"
