"""Options of the Kubernetes store, given by the user or by the pod's environment."""

from __future__ import annotations

from cni.protocol.record import Record


class KubeOptions(Record):
    """The API server, and which of its nodes this one is. `node_name`: empty where the API has to be asked for the node
    of `pod` (namespace and name).

    `kubeconfig` empty: the service account's files; then `server` may be empty as well, and is `service`, that of pods.
    A `server` replaces the one in the file. `prefix` is that of the annotations' keys, `network_file` has the network's
    configuration.
    """

    node_name: str
    pod: tuple[str, str]
    server: str
    kubeconfig: str
    service: str
    prefix: str
    network_file: str
    set_network_condition: bool
