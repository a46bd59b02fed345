"""The Kubernetes manifests: complete, of one version, with the rights that are used, and understood by podwire."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from cni import VERSION
from cni.agent.cli.options import parse_options
from cni.agent.model.network import VXLAN, parse_network_config
from cni.config.flannel import parse_flannel, parse_subnet_env, render
from cni.config.netconf import parse_netconf
from cni.diag.install import NAMES, parse_order
from cni.kernel.hostlock import RUN
from cni.protocol.fields import ConfigErrors
from cni.protocol.jsontext import dump, parse_object
from cni.protocol.plugin_config import PluginConfig

if TYPE_CHECKING:
    from cni.agent.cli.options import Options

Json = dict[str, Any]

CONF = Path(__file__).parents[2] / "conf"
ENTRYPOINT = ["/opt/podwire/podwired"]
IN_A_POD = {"NODE_NAME": "node1", "KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}
TWO_FAMILIES = re.compile(r"# flannel's keys\..* adds: (.*)$", re.MULTILINE)
SUBNET_ENV = """FLANNEL_NETWORK=10.244.0.0/16
FLANNEL_SUBNET=10.244.3.1/24
FLANNEL_MTU=1450
FLANNEL_IPMASQ=true
"""


def documents(name: str) -> dict[str, Json]:
    """Returns the objects of a manifest by their kind."""
    documents: dict[str, Json] = {}
    for document in yaml.safe_load_all((CONF / name).read_text()):
        assert document["kind"] not in documents
        documents[document["kind"]] = document
    return documents


INSTALLED, REMOVAL = documents("kubernetes/podwire.yaml"), documents("kubernetes/cleanup.yaml")
CONFIG: dict[str, str] = INSTALLED["ConfigMap"]["data"]
DAEMON_SETS = {"podwire.yaml": INSTALLED["DaemonSet"], "cleanup.yaml": REMOVAL["DaemonSet"]}
CONTAINERS = [
    pytest.param(daemon_set["spec"]["template"]["spec"], container, id=f"{file}-{container['name']}")
    for file, daemon_set in DAEMON_SETS.items()
    for kind in ("initContainers", "containers")
    for container in daemon_set["spec"]["template"]["spec"][kind]
]


def container(daemon_set: Json, name: str) -> Json:
    spec = daemon_set["spec"]["template"]["spec"]
    (containers,) = [item for item in spec["initContainers"] + spec["containers"] if item["name"] == name]
    assert isinstance(containers, dict)
    return containers


def options(of: Json) -> Options:
    """Returns the options of the container's podwired; none gives a notice."""
    assert "command" not in of
    parsed = parse_options(of["args"], IN_A_POD)
    assert parsed.notices == ()
    return parsed


def mounts(of: Json) -> dict[str, str]:
    return {mount["mountPath"]: mount["name"] for mount in of.get("volumeMounts", ())}


def list_for_runtime() -> Json:
    members: Json = parse_object(CONFIG["10-podwire.conflist"].encode(), "the list")
    return members


def test_all_that_the_cluster_needs_is_there_and_in_one_namespace() -> None:
    assert list(INSTALLED) == [
        "Namespace", "ServiceAccount", "ClusterRole", "ClusterRoleBinding", "ConfigMap", "DaemonSet",
    ]  # fmt: skip
    namespace = INSTALLED["Namespace"]["metadata"]
    assert namespace["labels"]["pod-security.kubernetes.io/enforce"] == "privileged"
    placed = [INSTALLED[kind] for kind in ("ServiceAccount", "ConfigMap", "DaemonSet")] + [REMOVAL["DaemonSet"]]
    assert {item["metadata"]["namespace"] for item in placed} == {namespace["name"]}


def test_policies_are_enforced() -> None:
    assert options(container(INSTALLED["DaemonSet"], "podwired")).network_policy


def test_the_account_may_read_nodes_and_what_policies_are_about_and_tell_of_its_own_node() -> None:
    reading = ["get", "list", "watch"]
    assert INSTALLED["ClusterRole"]["rules"] == [
        {"apiGroups": [""], "resources": ["nodes"], "verbs": reading},
        {"apiGroups": [""], "resources": ["nodes/status"], "verbs": ["patch"]},
        {"apiGroups": [""], "resources": ["namespaces", "pods"], "verbs": reading},
        {"apiGroups": ["networking.k8s.io"], "resources": ["networkpolicies"], "verbs": reading},
        {"apiGroups": ["policy.networking.k8s.io"], "resources": ["clusternetworkpolicies"], "verbs": reading},
    ]
    binding = INSTALLED["ClusterRoleBinding"]
    assert (binding["roleRef"]["kind"], binding["roleRef"]["name"]) == ("ClusterRole", "podwire")
    account = INSTALLED["ServiceAccount"]["metadata"]
    subject = {"kind": "ServiceAccount", "name": account["name"], "namespace": account["namespace"]}
    assert binding["subjects"] == [subject]
    assert INSTALLED["DaemonSet"]["spec"]["template"]["spec"]["serviceAccountName"] == account["name"]


@pytest.mark.parametrize("daemon_set", DAEMON_SETS.values(), ids=DAEMON_SETS)
def test_every_linux_node_has_a_pod_on_its_own_network(daemon_set: Json) -> None:
    template = daemon_set["spec"]["template"]
    assert daemon_set["spec"]["selector"]["matchLabels"] == template["metadata"]["labels"]
    spec = template["spec"]
    assert spec["hostNetwork"]
    assert spec["priorityClassName"] == "system-node-critical"
    assert spec["nodeSelector"] == {"kubernetes.io/os": "linux"}
    assert spec["tolerations"] == [{"operator": "Exists"}]


@pytest.mark.parametrize(("spec", "container"), CONTAINERS)
def test_a_container_has_this_version_and_few_rights(spec: Json, container: Json) -> None:
    assert (container["image"], container["imagePullPolicy"]) == (f"podwire:{VERSION}", "IfNotPresent")
    security = container["securityContext"]
    assert security["readOnlyRootFilesystem"]
    assert not security["allowPrivilegeEscalation"]
    assert security["capabilities"]["drop"] == ["ALL"]
    needed = {"podwired": ["NET_ADMIN"], "cleanup": ["NET_ADMIN"], "done": []}
    assert security["capabilities"].get("add", []) == needed.get(container["name"], ["DAC_OVERRIDE"])
    assert spec["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault"


@pytest.mark.parametrize("daemon_set", DAEMON_SETS.values(), ids=DAEMON_SETS)
def test_every_volume_is_used_and_every_mount_has_one(daemon_set: Json) -> None:
    spec = daemon_set["spec"]["template"]["spec"]
    used = {name for item in spec["initContainers"] + spec["containers"] for name in mounts(item).values()}
    assert used == {volume["name"] for volume in spec["volumes"]}
    for volume in spec["volumes"]:
        if volume["name"] == "config":
            assert volume["configMap"]["name"] == INSTALLED["ConfigMap"]["metadata"]["name"]
        else:
            assert volume["hostPath"]["type"] == "DirectoryOrCreate"


def test_the_agent_finds_and_writes_its_files_where_they_are_mounted() -> None:
    agent = container(INSTALLED["DaemonSet"], "podwired")
    given, paths = options(agent), mounts(agent)
    volumes = {volume["name"]: volume for volume in INSTALLED["DaemonSet"]["spec"]["template"]["spec"]["volumes"]}
    assert given.kube is not None
    assert given.conflist is not None
    for path in (given.kube.network_file, given.conflist.source):
        folder, _, name = path.rpartition("/")
        assert paths[folder] == "config"
        assert name in CONFIG
    for path in (given.subnet_file, given.conflist.path):
        folder = path.rpartition("/")[0]
        assert volumes[paths[folder]]["hostPath"]["path"] == folder
    assert volumes[paths[RUN]]["hostPath"]["path"] == RUN
    assert given.ip_masq
    assert given.kube.node_name == "node1"
    (variable,) = agent["env"]
    assert (variable["name"], variable["valueFrom"]["fieldRef"]["fieldPath"]) == ("NODE_NAME", "spec.nodeName")


@pytest.mark.parametrize(("probe", "path"), [("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")])
def test_probes_ask_where_the_agent_listens(probe: str, path: str) -> None:
    agent = container(INSTALLED["DaemonSet"], "podwired")
    given = options(agent)
    assert agent[probe]["httpGet"] == {"host": given.healthz_ip.text, "port": given.healthz_port, "path": path}


def test_plugins_are_installed_where_the_node_has_them_and_others_stay() -> None:
    volumes = {volume["name"]: volume for volume in INSTALLED["DaemonSet"]["spec"]["template"]["spec"]["volumes"]}
    orders = {}
    for container in INSTALLED["DaemonSet"]["spec"]["template"]["spec"]["initContainers"]:
        assert container["command"][:2] == ["/opt/podwire/podwire", "install"]
        order = orders[container["name"]] = parse_order(container["command"][2:])
        assert volumes[mounts(container)[order.folder]]["hostPath"]["path"] == order.folder
    (all_names, flannel) = orders.values()
    assert (all_names.names, all_names.force) == (NAMES, False)
    assert (flannel.names, flannel.force) == (("flannel",), True)


def test_the_network_is_flannels_and_in_each_family_that_it_names() -> None:
    network = parse_network_config(CONFIG["net-conf.json"].encode(), "net-conf.json")
    assert (network.network(4).text, network.families, network.backend.kind) == ("10.244.0.0/16", (4,), VXLAN)
    more = TWO_FAMILIES.search((CONF / "kubernetes/podwire.yaml").read_text())
    assert more
    both = CONFIG["net-conf.json"].replace("{", f"{{{more[1]},", 1)
    assert parse_network_config(both.encode(), "net-conf.json").families == (4, 6)


def test_one_process_attaches_a_pod_with_its_ports_and_limits() -> None:
    listed = list_for_runtime()
    (plugin,) = listed["plugins"]
    runtime = {
        "portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}],
        "bandwidth": {"ingressRate": 8000000, "ingressBurst": 8000000},
    }
    assert set(runtime) == {name for name, wanted in plugin["capabilities"].items() if wanted}
    members = {**plugin, "name": listed["name"], "cniVersion": listed["cniVersion"], "runtimeConfig": runtime}
    network = PluginConfig(listed["name"], listed["cniVersion"], members, dump(members).encode())
    errors = ConfigErrors()
    handed_on = render(network, parse_flannel(network, errors), parse_subnet_env(SUBNET_ENV, "subnet.env"))
    assert handed_on["type"] == "podwire"
    config = PluginConfig(network.name, network.version, handed_on, dump(handed_on).encode())
    attached = parse_netconf(config, {}, errors)
    assert errors.messages == []
    assert [mapping.host_port for mapping in attached.ports.mappings] == [8080]
    assert attached.may_map_ports
    assert attached.may_limit_bandwidth
    assert (attached.hairpin, attached.is_default_gateway, attached.ip_masq, attached.mtu) == (True, True, False, 1450)


def test_the_list_has_flannels_name_and_the_versions_that_runtimes_know() -> None:
    listed = list_for_runtime()
    assert listed["name"] == parse_object((CONF / "10-flannel.conflist").read_bytes(), "flannel's")["name"]
    assert (listed["cniVersion"], listed["cniVersions"]) == ("1.0.0", ["1.0.0", "1.1.0"])


def test_an_upgrade_takes_one_node_at_a_time_and_the_removal_all() -> None:
    strategy = {name: daemon_set["spec"]["updateStrategy"] for name, daemon_set in DAEMON_SETS.items()}
    assert strategy["podwire.yaml"] == {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}}
    assert strategy["cleanup.yaml"] == {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "100%"}}


def test_the_removal_takes_the_agents_place_and_removes_what_it_made() -> None:
    """An agent that runs would restore what is removed."""
    ours, theirs = INSTALLED["DaemonSet"], REMOVAL["DaemonSet"]
    assert list(REMOVAL) == ["DaemonSet"]
    assert theirs["metadata"] == ours["metadata"]
    assert theirs["spec"]["selector"] == ours["spec"]["selector"]
    agent, cleanup = container(ours, "podwired"), container(theirs, "cleanup")
    assert options(cleanup).cleanup
    assert options(cleanup).conflist == options(agent).conflist
    assert options(cleanup).subnet_file == options(agent).subnet_file
    assert {**mounts(cleanup), "/var/lib/cni/networks": "leases"} == mounts(agent)  # to count, which is all
    # Its imagePullSecrets count for the removal, too.
    accounts = [daemon_set["spec"]["template"]["spec"]["serviceAccountName"] for daemon_set in (ours, theirs)]
    assert accounts == [INSTALLED["ServiceAccount"]["metadata"]["name"]] * 2


def test_the_cluster_of_kind_leaves_the_network_to_podwire() -> None:
    kind = documents("kind.yaml")["Cluster"]
    assert kind["networking"]["disableDefaultCNI"]
    network = parse_network_config(CONFIG["net-conf.json"].encode(), "net-conf.json").network(4)
    assert kind["networking"]["podSubnet"] == network.text
    assert [node["role"] for node in kind["nodes"]] == ["control-plane", "worker"]


def test_the_image_of_a_container_engine_is_of_this_version_and_starts_the_agent() -> None:
    text = (CONF / "kubernetes/Dockerfile").read_text()
    assert f'image.version="{VERSION}"' in text
    assert f"ENTRYPOINT {dump([*ENTRYPOINT])}" in text
