"""The Helm chart: equal to the manifest at its default values, and understood by podwire at others."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from cni import VERSION
from cni.agent.cli.options import parse_options
from cni.agent.model.network import parse_network_config

if TYPE_CHECKING:
    from collections.abc import Callable

    Json = dict[str, Any]
    Rendered = dict[str, Json]

ROOT = Path(__file__).parents[2]
CHART, MANIFEST = ROOT / "conf/helm", ROOT / "conf/kubernetes/podwire.yaml"
IN_A_POD = {"NODE_NAME": "node1", "KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}


def objects(text: str) -> Rendered:
    """Returns the objects of a manifest by kind, with the JSON of the ConfigMap decoded."""
    decoded: Rendered = {}
    for document in filter(None, yaml.safe_load_all(text)):
        assert document["kind"] not in decoded
        decoded[document["kind"]] = document
    data = decoded["ConfigMap"]["data"]
    decoded["ConfigMap"]["data"] = {name: json.loads(value) for name, value in data.items()}
    return decoded


def container(rendered: Rendered) -> Json:
    (only,) = rendered["DaemonSet"]["spec"]["template"]["spec"]["containers"]
    assert isinstance(only, dict)
    return only


@pytest.fixture(scope="session")
def run_helm(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., subprocess.CompletedProcess[str]]:
    where = subprocess.run([ROOT / "hack/peers", "--where"], capture_output=True, text=True, check=True)
    helm = shutil.which("helm", path=f"{where.stdout.strip()}:{os.environ['PATH']}")
    if helm is None:
        pytest.skip("absent: helm (hack/peers --helm brings it)")
    home = tmp_path_factory.mktemp("helm")
    folders = {f"HELM_{name}_HOME": str(home) for name in ("CACHE", "CONFIG", "DATA")}

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        command = [helm, *arguments]
        return subprocess.run(command, env=os.environ | folders, capture_output=True, text=True, check=False)

    return run


@pytest.fixture
def render(run_helm: Callable[..., subprocess.CompletedProcess[str]]) -> Callable[..., Rendered]:
    def render(*values: str) -> Rendered:
        done = run_helm("template", "podwire", CHART, *[f"--set-json={value}" for value in values])
        assert (done.returncode, done.stderr) == (0, "")
        return objects(done.stdout)

    return render


def test_the_chart_is_of_this_version() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert (chart["name"], chart["version"], chart["appVersion"]) == ("podwire", VERSION, VERSION)


def test_each_value_has_a_schema() -> None:
    values, schema = yaml.safe_load((CHART / "values.yaml").read_text()), (CHART / "values.schema.json").read_text()
    known = json.loads(schema)["properties"]
    assert known.keys() - {"global"} == values.keys()
    closed = [name for name in known if known[name].get("additionalProperties") is False]
    assert {"backend", "image", "networkPolicy", "namespace"} == set(closed)
    closed.remove("backend")  # its further keys have podwired's defaults
    assert [name for name in closed if known[name]["properties"].keys() != values[name].keys()] == []


def test_lint_has_no_complaint(run_helm: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    done = run_helm("lint", "--strict", CHART)
    assert done.returncode == 0, done.stdout
    assert "[WARNING]" not in done.stdout


def test_at_default_values_it_is_the_manifest(render: Callable[..., Rendered]) -> None:
    rendered = render()
    # A namespace that the chart has made stays with what others have put there.
    assert rendered["Namespace"]["metadata"].pop("annotations") == {"helm.sh/resource-policy": "keep"}
    assert rendered == objects(MANIFEST.read_text())


def test_a_network_of_two_families_and_a_backend(render: Callable[..., Rendered]) -> None:
    rendered = render('network="10.1.0.0/16"', 'ipv6Network="fd00:1::/56"', 'backend={"Type": "vxlan", "VNI": 4096}')
    conf = rendered["ConfigMap"]["data"]["net-conf.json"]
    assert conf == {
        "Network": "10.1.0.0/16", "EnableIPv6": True, "IPv6Network": "fd00:1::/56", "EnableNFTables": True,
        "Backend": {"Type": "vxlan", "VNI": 4096},
    }  # fmt: skip
    parse_network_config(json.dumps(conf).encode(), "net-conf.json")


def test_a_backend_has_all_keys_that_podwired_knows(render: Callable[..., Rendered]) -> None:
    flags = {"GBP": True, "Learning": True, "DirectRouting": True}
    backend = {"Type": "vxlan", "VNI": 7, "Port": 4789, "MTU": 1400, **flags}
    conf = render(f"backend={json.dumps(backend)}")["ConfigMap"]["data"]["net-conf.json"]
    parsed = parse_network_config(json.dumps(conf).encode(), "net-conf.json").backend
    assert (parsed.vni, parsed.port, parsed.mtu) == (7, 4789, 1400)
    assert (parsed.gbp, parsed.learning, parsed.direct_routing) == (True, True, True)


def test_a_namespace_may_look_like_a_number(render: Callable[..., Rendered]) -> None:
    rendered = render('namespace={"name": "1234"}')
    assert rendered["Namespace"]["metadata"]["name"] == "1234"
    assert {each["metadata"].get("namespace", "1234") for each in rendered.values()} == {"1234"}


def test_a_network_of_ipv6_alone_with_more_keys(render: Callable[..., Rendered]) -> None:
    values = ('network=""', 'ipv6Network="fd00:1::/56"', 'backend={"Type": "host-gw"}')
    conf = render(*values, 'networkConfig={"IPv6SubnetLen": 72}')["ConfigMap"]["data"]["net-conf.json"]
    assert conf == {
        "EnableIPv4": False, "EnableIPv6": True, "IPv6Network": "fd00:1::/56", "IPv6SubnetLen": 72,
        "EnableNFTables": True, "Backend": {"Type": "host-gw"},
    }  # fmt: skip
    parse_network_config(json.dumps(conf).encode(), "net-conf.json")


def test_flags_are_those_of_podwired(render: Callable[..., Rendered]) -> None:
    policy = '{"established": "keep", "unknown": "open", "log": "denied", "nodeEgress": "open"}'
    arguments = container(render(f"networkPolicy={policy}", 'flags=["--iface=eth1"]', "healthPort=9999"))["args"]
    options = parse_options(arguments, IN_A_POD)
    assert (options.healthz_port, options.network_policy) == (9999, True)
    assert {"--policy-established=keep", "--policy-unknown=open", "--policy-log=denied"} < {*arguments}
    assert {"--policy-node-egress=open", "--iface=eth1", "--ip-masq"} < {*arguments}


def test_without_policies_it_may_not_read_pods(render: Callable[..., Rendered]) -> None:
    rendered = render('networkPolicy={"enabled": false, "log": "denied"}', "ipMasq=false")
    assert not parse_options(container(rendered)["args"], IN_A_POD).network_policy
    assert [flag for flag in container(rendered)["args"] if "policy" in flag or "masq" in flag] == []
    assert [rule["resources"] for rule in rendered["ClusterRole"]["rules"]] == [["nodes"], ["nodes/status"]]


def test_images_ports_resources_and_namespace(render: Callable[..., Rendered]) -> None:
    rendered = render(
        'image={"repository": "registry.example/podwire", "tag": "test", "pullPolicy": "Always"}',
        'imagePullSecrets=[{"name": "secret"}]',
        'resources={"limits": {"memory": "1Gi"}}',
        "healthPort=9999",
        'namespace={"name": "kube-system", "create": false}',
        'nodeSelector={"pool": "a"}',
        "tolerations=[]",
    )
    pod = rendered["DaemonSet"]["spec"]["template"]["spec"]
    images = [(each["image"], each["imagePullPolicy"]) for each in pod["initContainers"] + pod["containers"]]
    assert images == [("registry.example/podwire:test", "Always")] * 3
    assert container(rendered)["resources"]["limits"] == {"memory": "1Gi"}
    probes = [container(rendered)[probe]["httpGet"]["port"] for probe in ("livenessProbe", "readinessProbe")]
    assert probes == [9999, 9999]
    assert rendered["ServiceAccount"]["imagePullSecrets"] == [{"name": "secret"}]
    assert "Namespace" not in rendered
    namespaces = {each["metadata"].get("namespace", "kube-system") for each in rendered.values()}
    assert namespaces == {"kube-system"}
    assert rendered["ClusterRoleBinding"]["subjects"][0]["namespace"] == "kube-system"
    assert (pod["nodeSelector"]["pool"], pod["tolerations"]) == ("a", [])


def test_pods_without_a_bridge(render: Callable[..., Rendered]) -> None:
    delegate = 'delegate={"mode": "routed", "hairpinMode": null, "forceAddress": null}'
    (plugin,) = render(delegate)["ConfigMap"]["data"]["10-podwire.conflist"]["plugins"]
    assert plugin["delegate"] == {"type": "podwire", "mode": "routed", "isDefaultGateway": True}


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ('network=""', "network and ipv6Network"),
        ('netwrok="10.0.0.0/8"', "netwrok"),
        ('network="10.244.0.0"', "network"),
        ('network="10.244.0.300/16"', "network"),
        ('network="10.244.0.0/29"', "network"),
        ('network="fd00:1::/56"', "network"),
        ('ipv6Network="10.244.0.0/16"', "ipv6Network"),
        ('ipv6Network="fd00:1::"', "ipv6Network"),
        ('backend={"Type": "udp"}', "backend"),
        ('backend={"vni": 7}', "vni"),
        ('backend={"Port": "8472"}', "Port"),
        ('namespace={"name": "Podwire"}', "name"),
        ('namespace={"name": "a: b"}', "name"),
        ('flags=["iface=eth1"]', "flags"),
        ('networkPolicy={"enable": false}', "enable"),
        ('networkPolicy={"established": "kep"}', "established"),
    ],
)
def test_a_wrong_value_is_named(
    run_helm: Callable[..., subprocess.CompletedProcess[str]], value: str, named: str
) -> None:
    done = run_helm("template", "podwire", CHART, f"--set-json={value}")
    assert done.returncode
    assert named in done.stderr
