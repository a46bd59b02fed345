"""TLS towards a store, from certificates and keys as texts: their files are read like all that a user names."""

from __future__ import annotations

import os
import ssl


def context_of(ca: str, identity: str) -> ssl.SSLContext:
    """`ca`: whom to trust, empty for whom the system trusts; `identity`: certificate and key, or empty. All PEM.

    Raises OSError, ValueError.
    """
    try:
        context = ssl.create_default_context(cadata=ca.encode("ascii", "replace").decode() or None)
    except ssl.SSLError as error:
        raise ValueError(f"no CA certificate can be read ({_of_openssl(error)})") from None
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # as Go: certificates without key identifiers are common
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if identity:
        _identify(context, identity)
    return context


def _identify(context: ssl.SSLContext, pem: str) -> None:
    """OpenSSL reads files alone, and a key is not to come to rest in one."""
    descriptor = os.memfd_create("identity", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, pem.encode())
        context.load_cert_chain(f"/proc/self/fd/{descriptor}", password="")  # never asks the terminal
    except ssl.SSLError as error:
        raise ValueError(f"certificate and key cannot be used together ({_of_openssl(error)})") from None
    finally:
        os.close(descriptor)


def _of_openssl(error: ssl.SSLError) -> str:
    return f"OpenSSL: {error.reason.replace('_', ' ').lower()}" if error.reason else "OpenSSL finds none"
