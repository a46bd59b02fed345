"""The configuration of `type: flannel`, and that of the plugin to which it delegates, made from the node agent's file
(subnet.env).
"""

from __future__ import annotations

from cni.protocol.address import Net, parse_net
from cni.protocol.fields import ConfigErrors
from cni.protocol.record import Record
from cni.protocol.request import is_plugin_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.protocol.jsontext import JsonValue
    from cni.protocol.plugin_config import PluginConfig

SUBNET_FILE = "/run/flannel/subnet.env"
DATA_DIR = "/var/lib/cni/flannel"
NETWORKS = ("FLANNEL_NETWORK", "FLANNEL_IPV6_NETWORK")
SUBNETS = ("FLANNEL_SUBNET", "FLANNEL_IPV6_SUBNET")
RESERVED = ("name", "ipam")  # keys that `delegate` must not have


class SubnetEnv(Record):
    """The content of subnet.env: the cluster's networks, the node's subnets, the MTU in bytes. `masquerades`: the agent
    masquerades, so that the plugin does not.
    """

    networks: tuple[Net, ...]
    subnets: tuple[Net, ...]
    mtu: int
    masquerades: bool


class FlannelConf(Record):
    """The plugin's settings; `delegate` and `ipam` as the user wrote them."""

    subnet_file: str
    data_dir: str
    delegate: dict[str, JsonValue]
    ipam: dict[str, JsonValue]


def parse_flannel(config: PluginConfig, errors: ConfigErrors) -> FlannelConf:
    fields = config.fields(errors)
    conf = FlannelConf(
        subnet_file=fields.file_path("subnetFile") or SUBNET_FILE,
        data_dir=fields.file_path("dataDir") or DATA_DIR,
        delegate=fields.members("delegate"),
        ipam=fields.members("ipam"),
    )
    for key in RESERVED:
        if key in conf.delegate:
            fields.error(f"delegate.{key}", "is set by flannel, remove it")
    kind = conf.delegate.get("type", "bridge")
    if not isinstance(kind, str) or not is_plugin_name(kind):
        fields.error("delegate.type", "must be the name of a plugin, without a folder")
    return conf


def parse_subnet_env(text: str, path: str) -> SubnetEnv:
    """Parses lines KEY=VALUE; networks and subnets are separated by commas. Raises ValueError."""
    lines = [line.strip() for line in text.splitlines()]
    values = {key: value for key, _, value in (line.partition("=") for line in lines) if value}
    missing = [keys[0] for keys in (NETWORKS, SUBNETS) if not any(key in values for key in keys)]
    missing += [key for key in ("FLANNEL_MTU", "FLANNEL_IPMASQ") if key not in values]
    if missing:
        raise ValueError(f"{path} is missing {', '.join(missing)}")
    mtu = values["FLANNEL_MTU"]
    if not (mtu.isascii() and mtu.isdigit()):
        raise ValueError(f"{path}: FLANNEL_MTU={mtu} is not a number of bytes")
    networks, subnets = (_nets(values, keys, path) for keys in (NETWORKS, SUBNETS))
    return SubnetEnv(networks, subnets, int(mtu), values["FLANNEL_IPMASQ"] == "true")


def _nets(values: dict[str, str], keys: tuple[str, ...], path: str) -> tuple[Net, ...]:
    networks = []
    for key in keys:
        for text in values.get(key, "").split(",") if key in values else []:
            try:
                networks.append(parse_net(text.strip()).network)
            except ValueError as error:
                raise ValueError(f"{path}: {key}: {error}") from None
    return tuple(networks)


def render(config: PluginConfig, conf: FlannelConf, env: SubnetEnv) -> dict[str, JsonValue]:
    """Returns the delegate's configuration, with the reference's defaults."""
    delegate: dict[str, JsonValue] = {"type": "bridge", "ipMasq": not env.masquerades, "mtu": env.mtu, **conf.delegate}
    if delegate["type"] == "bridge":
        delegate.setdefault("isGateway", True)
    fields = config.fields(ConfigErrors())
    delegate |= {"name": config.name, "cniVersion": config.version}
    for key in ("runtimeConfig", "capabilities"):
        if (value := fields.raw(key)) is not None:
            delegate[key] = value
    configured = conf.ipam.get("routes")
    routes: list[JsonValue] = [*configured] if isinstance(configured, list) else []
    routes.extend({"dst": cluster.text} for cluster in env.networks)
    ranges: list[JsonValue] = [[{"subnet": subnet.text}] for subnet in env.subnets]
    delegate["ipam"] = {"type": "host-local", **conf.ipam, "ranges": ranges, "routes": routes}
    return delegate
