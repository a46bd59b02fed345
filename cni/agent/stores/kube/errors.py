"""Errors of the Kubernetes API, in words for people."""

from __future__ import annotations

from cni.agent.stores.errors import StoreError


class ApiError(StoreError):
    """The API server is unreachable, rejected a request, or answered with nonsense."""


class Expired(ApiError):
    """The requested revision is older than what the API server remembers (410 Gone)."""


class Absent(ApiError):
    """The API server does not know what was asked for (404 Not Found)."""


class Forbidden(ApiError):
    """The API server does not allow it (403 Forbidden)."""


class TooLarge(ApiError):
    """An answer is larger than what is read of one."""
