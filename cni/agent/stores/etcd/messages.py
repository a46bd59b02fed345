"""etcd's requests and responses in its JSON gateway's form: bytes in base64, 64-bit integers as texts, no zeros."""

from __future__ import annotations

from binascii import a2b_base64, b2a_base64
from typing import Any

from cni.protocol.record import Record

Json = dict[str, Any]


class KeyValue(Record):
    """A key of etcd, with the revisions at which it was created and modified last; `lease` 0: it never expires."""

    key: bytes
    value: bytes
    created: int
    modified: int
    lease: int


def text64(data: bytes) -> str:
    return b2a_base64(data, newline=False).decode()


def key_value(message: Json) -> KeyValue:
    return KeyValue(
        a2b_base64(message["key"]),
        a2b_base64(message.get("value", "")),
        int(message.get("create_revision", 0)),
        int(message.get("mod_revision", 0)),
        int(message.get("lease", 0)),
    )


def revision_of(answer: Json) -> int:
    return int(answer["header"].get("revision", 0))


def prefix_range(folder: bytes) -> Json:
    """Returns the range of all keys that begin with the folder's name, which ends in a slash."""
    return {"key": text64(folder), "range_end": text64(folder[:-1] + b"0")}


def put(key: bytes, value: bytes, lease: int = 0) -> Json:
    return {"request_put": {"key": text64(key), "value": text64(value), "lease": str(lease)}}


def delete(key: bytes) -> Json:
    return {"request_delete_range": {"key": text64(key)}}


def created_since(folder: bytes, revision: int) -> Json:
    return {"request_range": {**prefix_range(folder), "min_create_revision": str(revision + 1)}}


def unchanged(entry: KeyValue) -> Json:
    """Compares: the key was neither written nor deleted since."""
    return {"key": text64(entry.key), "target": "MOD", "result": "EQUAL", "mod_revision": str(entry.modified)}


def none_created_since(folder: bytes, revision: int) -> Json:
    """Compares: no key was created in the folder since; renewals of other leases do not matter."""
    return {**prefix_range(folder), "target": "CREATE", "result": "LESS", "create_revision": str(revision + 1)}
