"""Intake of a store's objects: each goes into the index by its kind."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.agent.policy.clusterpolicy import ClusterPolicy
from cni.agent.policy.events import CLUSTER_POLICIES, LOCAL_PODS, NAMESPACES, NODES, POLICIES
from cni.agent.policy.nodes import Node
from cni.agent.policy.objects import Namespace, NetworkPolicy, Pod

if TYPE_CHECKING:
    from cni.agent.policy.events import Key, PolicyObject
    from cni.agent.policy.index import Index


def put_object(index: Index, kind: str, key: Key, new: PolicyObject | None) -> bool:
    """Puts an object into the index; None: takes it out. Returns False for one that cannot be understood: that stays as
    it was.
    """
    match new:
        case Namespace():
            index.put_namespace(new)
        case NetworkPolicy() | ClusterPolicy():
            index.put_policy(new)
        case Node():
            index.put_node(new)
        case Pod():
            index.put_pod(new._replace(node=index.node if kind == LOCAL_PODS else ""))
        case None:
            _remove(index, kind, key)
        case _:
            return False
    return True


def _remove(index: Index, kind: str, key: Key) -> None:
    if kind == NAMESPACES:
        index.remove_namespace(key[1])
    elif kind in (POLICIES, CLUSTER_POLICIES):
        index.remove_policy(*key)
    elif kind == NODES:
        index.remove_node(key[1])
    else:
        index.remove_pod(*key)
