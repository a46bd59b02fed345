"""Objects of files as `kubectl get` writes them: documents, Lists in them, and the kinds that count.

An object is read as the API server would take it: with the API's defaults, in the namespace `default` unless it names
another, and with a namespace to be in.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from cni.agent.policy.clusterpolicy import ClusterPolicy, parse_cluster_policy
from cni.agent.policy.events import CLUSTER_POLICIES, NAMESPACES, NODES, POLICIES, REMOTE_PODS
from cni.agent.policy.jsonobject import Invalid
from cni.agent.policy.nodes import parse_node
from cni.agent.policy.objects import (
    DEFAULT_NAMESPACE,
    NAMESPACE_NAME,
    Namespace,
    NetworkPolicy,
    Pod,
    parse_namespace,
    parse_pod,
    parse_policy,
)
from cni.protocol.record import Record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from cni.agent.policy.events import Key, PolicyObject
    from cni.protocol.jsontext import JsonValue

LIST = "List"
CLUSTER_VERSIONS = ("policy.networking.k8s.io/v1alpha2", "policy.networking.k8s.io/v1beta1")  # are the same
CLUSTERED = (NAMESPACES, CLUSTER_POLICIES, NODES)  # are in no namespace
# By kind: the versions of the API, the kind of events, and the parser.
PARSERS: dict[str, tuple[tuple[str, ...], str, Callable[[JsonValue], PolicyObject]]] = {
    "Namespace": (("v1",), NAMESPACES, parse_namespace),
    "Node": (("v1",), NODES, parse_node),
    "Pod": (("v1",), REMOTE_PODS, parse_pod),
    "NetworkPolicy": (("networking.k8s.io/v1",), POLICIES, parse_policy),
    "ClusterNetworkPolicy": (CLUSTER_VERSIONS, CLUSTER_POLICIES, parse_cluster_policy),
}


class Item(Record):
    """An object of a file: its kind in events, its key, and what is wrong with it, if anything is."""

    kind: str
    key: Key
    object: PolicyObject
    error: str = ""

    @property
    def title(self) -> str:
        return title_of(self.kind, self.key)


class Content(Record):
    """The objects of a file. `errors` of what has no name; `ignored`: how many there are of kinds that do not count."""

    items: tuple[Item, ...] = ()
    errors: tuple[str, ...] = ()
    ignored: tuple[tuple[str, int], ...] = ()


def read_objects(documents: list[JsonValue]) -> Content:
    """Returns the content of a file's documents."""
    items: list[Item] = []
    errors: list[str] = []
    ignored: Counter[str] = Counter()
    for place, value in _objects(documents):
        if not isinstance(value, dict) or not isinstance(kind := value.get("kind"), str):
            errors.append(f"{place}: expected an object with a kind")
        elif kind not in PARSERS:
            ignored[kind] += 1
        elif isinstance(item := _item(kind, value), Item):
            items.append(item)
        else:
            errors.append(f"{place}: {kind}: {item}")
    return Content(tuple(items), tuple(errors), tuple(sorted(ignored.items())))


def implied_namespaces(items: Iterable[Item]) -> Iterator[tuple[Key, Namespace]]:
    """Yields the namespaces that objects are in, and the default one, as the API server would make them."""
    names = {DEFAULT_NAMESPACE: None} | {item.key[0]: None for item in items if item.key[0]}
    for name in names:
        yield ("", name), implied_namespace(name)


def implied_namespace(name: str) -> Namespace:
    return Namespace(name, ((NAMESPACE_NAME, name),))


def pod_without_labels(namespace: str, name: str) -> Pod:
    """Returns a pod that no file has: it is in its namespace, and its addresses are those of its ADD."""
    return Pod(namespace, name, (), (), (), False, False, "")


def title_of(kind: str, key: Key) -> str:
    """Returns an object's name for people."""
    return f"{kind} {'/'.join(filter(None, key))}"


def _objects(documents: list[JsonValue]) -> Iterator[tuple[str, JsonValue]]:
    """Yields every object with its place: a List is its items."""
    for number, document in enumerate(documents, 1):
        yield from _items(f"document {number}", document)


def _items(place: str, value: JsonValue) -> Iterator[tuple[str, JsonValue]]:
    kind = value.get("kind") if isinstance(value, dict) else None
    items = value.get("items") if isinstance(value, dict) else None
    if not (isinstance(value, dict) and isinstance(kind, str) and kind.endswith(LIST) and isinstance(items, list)):
        yield place, value
        return
    # Those of a PodList, for one, need not say what they are.
    implied: dict[str, JsonValue] = (
        {} if kind == LIST else {"apiVersion": value.get("apiVersion"), "kind": kind[: -len(LIST)]}
    )
    for index, item in enumerate(items):
        yield from _items(f"{place}.items[{index}]", implied | item if isinstance(item, dict) else item)


def _item(name: str, value: dict[str, JsonValue]) -> Item | str:
    """Returns an object of one of the kinds, or what is wrong with one that has no name."""
    versions, kind, parse = PARSERS[name]
    key = _key(kind, value)
    if value.get("apiVersion") not in versions:
        error = f"apiVersion {value.get('apiVersion')!r} is not supported, {versions[0]} is"
        return Item(kind, key, error, error) if key is not None else error
    try:
        parsed = parse(value)
    except Invalid as invalid:
        error = str(invalid)
        return Item(kind, key, error, error) if key is not None else error
    assert key is not None
    return Item(kind, key, parsed, parsed.error if isinstance(parsed, NetworkPolicy | ClusterPolicy) else "")


def _key(kind: str, value: dict[str, JsonValue]) -> Key | None:
    """Returns namespace and name; None where they are no texts."""
    metadata = value.get("metadata")
    if not isinstance(metadata, dict):
        return None
    name, namespace = metadata.get("name"), metadata.get("namespace")
    namespace = "" if kind in CLUSTERED else DEFAULT_NAMESPACE if namespace is None else namespace
    return (namespace, name) if name and isinstance(name, str) and isinstance(namespace, str) else None
