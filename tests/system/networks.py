"""The networks that people run with the reference plugins, as their projects ship them, and each once more in one step.

They are taken unchanged but for one thing: podman's has bandwidth in its chain, and tuning something to do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from tests.system.plugins import Json

MEGABIT = 1_000_000
RATE, BURST = 10 * MEGABIT, MEGABIT // 10
MTU = 1400
TUNED = "net.ipv4.conf.IFNAME.arp_filter"
SUBNET_ENV = "/run/flannel/subnet.env"
WRITTEN = """FLANNEL_NETWORK=10.244.0.0/16
FLANNEL_SUBNET=10.244.1.1/24
FLANNEL_MTU=1450
FLANNEL_IPMASQ=true
"""
PORTMAP = {"type": "portmap", "capabilities": {"portMappings": True}}


class Network(NamedTuple):
    """`chain`: with one plugin for each task; `single`: the same as one plugin of type podwire.

    `masquerades`: a host outside sees the node in a container's place.
    """

    chain: Json
    single: Json
    subnets: tuple[str, ...]
    masquerades: bool
    reference: bool = True  # all of the chain's plugins are among the peers

    def conflist(self, kind: str) -> Json:
        """Returns the configuration of the kind "chain" or "single"."""
        if kind == "chain":
            return self.chain
        return {"cniVersion": self.chain["cniVersion"], "name": self.chain["name"], "plugins": [self.single]}

    @property
    def checks(self) -> bool:
        """CHECK came with version 0.4.0 of the protocol."""
        return str(self.chain["cniVersion"]) >= "0.4.0"

    @property
    def families(self) -> tuple[int, ...]:
        return tuple(6 if ":" in subnet else 4 for subnet in self.subnets)


def _host_local(*subnets: str, routes: tuple[str, ...] = (), **others: object) -> Json:
    sets = [[{"subnet": subnet}] for subnet in subnets]
    return {"type": "host-local", **others, "ranges": sets, "routes": [{"dst": route} for route in routes]}


def _single(*capabilities: str, **settings: object) -> Json:
    return {"type": "podwire", "capabilities": dict.fromkeys(capabilities, True), **settings}


def _chain(version: str, name: str, *plugins: Json) -> Json:
    return {"cniVersion": version, "name": name, "plugins": list(plugins)}


def _containerd() -> Network:
    """Returns containerd's list: script/setup/install-cni."""
    subnets = ("10.88.0.0/16", "2001:db8:4860::/64")
    ipam = _host_local(*subnets, routes=("0.0.0.0/0", "::/0"))
    settings = {"bridge": "cni0", "isGateway": True, "ipMasq": True, "promiscMode": True, "ipam": ipam}
    chain = _chain("1.0.0", "containerd-net", {"type": "bridge", **settings}, PORTMAP)
    return Network(chain, _single("portMappings", **settings), subnets, masquerades=True)


def _podman() -> Network:
    """Returns podman's list: cni/87-podman-bridge.conflist, with bandwidth; nerdctl's default has the same plugins."""
    subnet = "10.89.0.0/16"
    ipam = {
        "type": "host-local",
        "routes": [{"dst": "0.0.0.0/0"}],
        "ranges": [[{"subnet": subnet, "gateway": "10.89.0.1"}]],
    }
    settings = {"bridge": "cni-podman0", "isGateway": True, "ipMasq": True, "hairpinMode": True, "ipam": ipam}
    chain = _chain(
        "0.4.0",
        "podman",
        {"type": "bridge", **settings},
        PORTMAP,
        {"type": "bandwidth", "capabilities": {"bandwidth": True}},
        {"type": "firewall"},
        {"type": "tuning", "sysctl": {TUNED: "1"}, "mtu": MTU},
    )
    return Network(chain, _single("portMappings", "bandwidth", **settings, mtu=MTU), (subnet,), masquerades=True)


def _kind() -> Network:
    """Returns kind's list: images/kindnetd/cmd/kindnetd/cni.go, dual stack."""
    subnets = ("10.244.0.0/24", "fd00:10:244::/64")
    ipam = _host_local(*subnets, routes=("0.0.0.0/0", "::/0"), dataDir="/run/cni-ipam-state")
    settings = {"ipMasq": False, "ipam": ipam, "mtu": 1500}
    chain = _chain("0.3.1", "kindnet", {"type": "ptp", **settings}, PORTMAP)
    return Network(chain, _single("portMappings", **settings, mode="routed"), subnets, masquerades=False)


def _flannel() -> Network:
    """Returns flannel's list: Documentation/kube-flannel.yml. The agent masquerades, not the plugin."""
    subnet = "10.244.1.0/24"
    delegate = {"hairpinMode": True, "isDefaultGateway": True}
    chain = _chain("0.3.1", "cbr0", {"type": "flannel", "delegate": delegate}, PORTMAP)
    ipam = _host_local(subnet, routes=("10.244.0.0/16",))
    return Network(
        chain, _single("portMappings", **delegate, mtu=1450, ipam=ipam), (subnet,), masquerades=False, reference=False
    )


NETWORKS = {"containerd": _containerd(), "podman": _podman(), "kind": _kind(), "flannel": _flannel()}


def runtime_config(port: int) -> Json:
    """Returns the runtimeConfig of a container whose port 80 is the host's `port` and whose bandwidth is limited."""
    ports = [{"hostPort": port, "containerPort": 80, "protocol": protocol} for protocol in ("tcp", "udp")]
    limits = {"ingressRate": RATE, "ingressBurst": BURST, "egressRate": RATE, "egressBurst": BURST}
    return {"portMappings": ports, "bandwidth": limits}
