"""How Kubernetes is reached, and which of its nodes this one is: what the user, or the pod, says of it."""

from __future__ import annotations

from cni.protocol.record import Record


class KubeOptions(Record):
    """`node_name`: empty where `pod` (namespace and name) has to be asked for it.

    `kubeconfig` empty: the service account's files; then `server` may be empty as well, and is `service`, that of pods.
    A `server` stands in for the one in the file. `prefix` is that of the annotations' keys, `network_file` has the
    network's configuration.
    """

    node_name: str
    pod: tuple[str, str]
    server: str
    kubeconfig: str
    service: str
    prefix: str
    network_file: str
    set_network_condition: bool
