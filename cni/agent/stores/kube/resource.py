"""Resources of the Kubernetes API, and what the metadata of any object says."""

from __future__ import annotations

from typing import Any

from cni.agent.stores.kube.errors import ApiError
from cni.protocol.record import Record

Json = dict[str, Any]


Key = tuple[str, str]  # namespace, which is empty for objects that have none, and name
OBJECTS = "application/json"


class Resource(Record):
    """A collection that can be listed and watched: its plural as in the API's permissions, and where it is.

    `page`: objects in one answer. `fields`: a selector of some of them. `types`: the media types of a list and of a
    watch, which may be those of the objects' metadata alone.
    """

    name: str
    path: str
    page: int
    fields: str = ""
    types: tuple[str, str] = (OBJECTS, OBJECTS)


NODES = Resource("nodes", "/api/v1/nodes", 100)  # 1 MB a page: larger ones take memory, and no less time


def object_key(resource: Resource, item: object) -> Key:
    """Returns an object's namespace and name. Raises ApiError."""
    metadata = item.get("metadata") if isinstance(item, dict) else None
    metadata = metadata if isinstance(metadata, dict) else {}
    namespace, name = metadata.get("namespace") or "", metadata.get("name")
    if not (name and isinstance(name, str) and isinstance(namespace, str)):
        raise ApiError(f"Kubernetes {resource.name}: an object has no metadata.name")
    return namespace, name


def resource_version(resource: Resource, item: Json) -> str:
    """Returns an object's revision. Raises ApiError."""
    metadata = item.get("metadata")
    if not (isinstance(metadata, dict) and metadata.get("resourceVersion")):
        raise ApiError(f"Kubernetes {resource.name}: an object has no metadata.resourceVersion")
    return str(metadata["resourceVersion"])


def is_older(revision: str, than: str) -> bool:
    """Compares two revisions, which are numbers; from anything else nothing follows."""
    return revision.isdecimal() and than.isdecimal() and int(revision) < int(than)
