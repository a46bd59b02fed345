"""podwired's command line where Kubernetes is the store."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cni.agent.cli.flags import InvalidOptions
from cni.agent.cli.options import parse_options

if TYPE_CHECKING:
    from cni.agent.cli.options import Options
    from cni.agent.stores.kube.options import KubeOptions

POD = {
    "KUBERNETES_SERVICE_HOST": "10.96.0.1",
    "KUBERNETES_SERVICE_PORT": "443",
    "POD_NAMESPACE": "kube-flannel",
    "POD_NAME": "agent-x",
}


def parse(*arguments: str, **environment: str) -> Options:
    return parse_options(["--kube-subnet-mgr", *arguments], environment)


def kube(*arguments: str, **environment: str) -> KubeOptions:
    options = parse(*arguments, **environment)
    assert options.etcd is None
    assert options.kube is not None
    return options.kube


def errors(*arguments: str, **environment: str) -> str:
    with pytest.raises(InvalidOptions) as caught:
        parse(*arguments, **environment)
    return str(caught.value)


def test_a_pod_needs_no_more_than_the_switch() -> None:
    assert kube(**POD)._asdict() == {
        "node_name": "",
        "pod": ("kube-flannel", "agent-x"),
        "server": "",
        "kubeconfig": "",
        "service": "https://10.96.0.1:443",
        "prefix": "flannel.alpha.coreos.com/",
        "network_file": "/etc/kube-flannel/net-conf.json",
        "set_network_condition": True,
    }
    assert parse_options([], {"FLANNELD_KUBE_SUBNET_MGR": "true", **POD}).kube == kube(**POD)


def test_every_flag_reaches_its_option() -> None:
    given = kube(
        "--kube-api-url=https://10.0.0.1:6443", "--kubeconfig-file=/k", "--kube-annotation-prefix=example.com/a",
        "--net-config-path=/n", "--set-node-network-unavailable=false", "--node-name=one",
    )  # fmt: skip
    assert tuple(given) == ("one", ("", ""), "https://10.0.0.1:6443", "/k", "", "example.com/a-", "/n", False)


def test_the_node_s_name_is_the_flag_s_the_variable_s_or_asked_of_the_pod() -> None:
    assert kube("--node-name=a", NODE_NAME="b", **POD).node_name == "a"
    assert kube(NODE_NAME="b", **POD)[:2] == ("b", ("", ""))
    assert kube(NODE_NAME="", **POD)[:2] == ("", ("kube-flannel", "agent-x"))


def test_the_service_s_address_may_be_of_ipv6() -> None:
    assert kube(**{**POD, "KUBERNETES_SERVICE_HOST": "fd00::1"}).service == "https://[fd00::1]:443"


@pytest.mark.parametrize(
    ("arguments", "environment", "error"),
    [
        ("--node-name=a", {}, "--kubeconfig-file: missing: outside of a pod it, or --kube-api-url, says where"),
        ("--kubeconfig-file=k", {}, "--node-name: missing, and no variable says it: NODE_NAME, or POD_NAMESPACE and"),
        ("--kubeconfig-file=k", {"POD_NAME": "x"}, "--node-name: missing"),
        ("--kube-api-url=10.0.0.1:6443", POD, "--kube-api-url: '10.0.0.1:6443' is not a server, as https://"),
        ("--kube-annotation-prefix=org", POD, "--kube-annotation-prefix: 'org': expected a domain"),
        ("--kube-annotation-prefix=", POD, "--kube-annotation-prefix: is empty"),
        ("--net-config-path=", POD, "--net-config-path: is empty"),
        ("--nodes-file=n", POD, "--nodes-file: does not go together with --kube-subnet-mgr"),
        ("--set-node-network-unavailable=no", POD, "--set-node-network-unavailable: 'no' is neither true nor false"),
    ],
)
def test_a_fault_names_the_flag_and_what_is_expected(arguments: str, environment: dict[str, str], error: str) -> None:
    assert error in errors(*arguments.split(" "), **environment)


def test_what_is_for_another_store_is_noticed() -> None:
    assert parse("--etcd-prefix=/a", **POD).notices == ("--etcd-prefix: has no effect with --kube-subnet-mgr",)
    without = parse_options(["--kube-subnet-mgr=false", "--kubeconfig-file=k"], {})
    assert without.kube is None
    assert without.notices[-1] == "--kubeconfig-file: has no effect without --kube-subnet-mgr"
