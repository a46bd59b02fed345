"""The result of ADD in every version of the specification (SPEC, section 5; older shapes: its earlier releases)."""

from __future__ import annotations

from cni.protocol.errors import InvalidConfig
from cni.protocol.fields import UINT32
from cni.protocol.record import Record
from cni.protocol.versions import at_least

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.protocol.address import IP, Net
    from cni.protocol.fields import Fields
    from cni.protocol.jsontext import JsonValue


class Interface(Record):
    """An interface; `sandbox` is empty for one of the host; `extras` holds members that podwire passes through."""

    name: str
    mac: str = ""
    sandbox: str = ""
    extras: tuple[tuple[str, str | int], ...] = ()

    @property
    def mtu(self) -> int:
        """Returns the MTU in bytes; 0 if it is not in the result."""
        mtu = dict(self.extras).get("mtu")
        return mtu if isinstance(mtu, int) else 0

    def with_mtu(self, mtu: int) -> Interface:
        return self._replace(extras=tuple({**dict(self.extras), "mtu": mtu}.items()))


class IPConfig(Record):
    """An address; `interface` is an index into the result's interfaces."""

    address: Net
    gateway: IP | None = None
    interface: int | None = None


class Route(Record):
    """A route: mtu and advmss in bytes; table and scope as in rtnetlink, None if not given."""

    dst: Net
    gw: IP | None = None
    mtu: int = 0
    advmss: int = 0
    priority: int = 0
    table: int | None = None
    scope: int | None = None


class DNS(Record):
    nameservers: tuple[str, ...] = ()
    domain: str = ""
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


class Result(Record):
    interfaces: tuple[Interface, ...] = ()
    ips: tuple[IPConfig, ...] = ()
    routes: tuple[Route, ...] = ()
    dns: DNS = DNS()


def parse_dns(fields: Fields) -> DNS:
    return DNS(
        nameservers=fields.texts("nameservers"),
        domain=fields.text("domain"),
        search=fields.texts("search"),
        options=fields.texts("options"),
    )


def parse_routes(objects: list[Fields]) -> tuple[Route, ...]:
    routes = []
    for fields in objects:
        dst = fields.net("dst")
        if dst is None:
            if not fields.text("dst"):
                fields.error("dst", "a route needs a destination (as in 0.0.0.0/0)")
            continue
        gw = fields.ip("gw")
        if gw is not None and gw.family != dst.family:
            fields.error("gw", f"{gw.text} is not of the family of {dst.text}")
        routes.append(
            Route(
                dst=dst.network,
                gw=gw,
                mtu=fields.integer("mtu", 0, UINT32),
                advmss=fields.integer("advmss", 0, UINT32),
                priority=fields.integer("priority", 0, UINT32),
                table=fields.optional_integer("table", 0, UINT32),
                scope=fields.optional_integer("scope", 0, 255),
            )
        )
    return tuple(routes)


def parse_result(fields: Fields, version: str) -> Result:
    """Parses a result in the shape of `version`; errors are added to those of `fields`."""
    if not at_least(version, "0.3.0"):
        return _parse_020(fields)
    interfaces = []
    for member in fields.objects("interfaces"):
        extras: list[tuple[str, str | int]] = [("mtu", member.integer("mtu", 0, UINT32))]
        extras += [(key, member.text(key)) for key in ("socketPath", "pciID")]
        present = tuple([(key, value) for key, value in extras if value])
        interfaces.append(Interface(member.text("name"), member.text("mac"), member.text("sandbox"), present))
    ips = []
    for member in fields.objects("ips"):
        address = member.net("address")
        if address is None:
            if not member.text("address"):
                member.error("address", "missing")
            continue
        index = member.optional_integer("interface", -1, UINT32)
        ips.append(IPConfig(address, member.ip("gateway"), index))
    routes = parse_routes(fields.objects("routes"))
    return Result(tuple(interfaces), tuple(ips), routes, parse_dns(fields.object("dns")))


def _parse_020(fields: Fields) -> Result:
    ips: list[IPConfig] = []
    routes: list[Route] = []
    for key in ("ip4", "ip6"):
        family = fields.object(key)
        address = family.net("ip")
        if address is not None:
            ips.append(IPConfig(address, family.ip("gateway")))
            routes.extend(parse_routes(family.objects("routes")))
    return Result((), tuple(ips), tuple(routes), parse_dns(fields.object("dns")))


def _route_json(route: Route) -> JsonValue:
    members: dict[str, JsonValue] = {"dst": route.dst.text}
    if route.gw is not None:
        members["gw"] = route.gw.text
    for key in ("mtu", "advmss", "priority"):
        if value := getattr(route, key):
            members[key] = value
    for key in ("table", "scope"):
        if (value := getattr(route, key)) is not None:
            members[key] = value
    return members


def _dns_json(dns: DNS) -> dict[str, JsonValue]:
    members: dict[str, JsonValue] = {}
    for key, value in dns._asdict().items():
        if value:
            members[key] = value if isinstance(value, str) else list(value)
    return members


def _interface_json(interface: Interface, extras: bool) -> JsonValue:
    members: dict[str, JsonValue] = {"name": interface.name}
    if interface.mac:
        members["mac"] = interface.mac
    if extras:
        members.update(interface.extras)
    if interface.sandbox:
        members["sandbox"] = interface.sandbox
    return members


def _ip_json(ip: IPConfig, with_family: bool) -> JsonValue:
    members: dict[str, JsonValue] = {}
    if with_family:
        members["version"] = str(ip.address.family)
    if ip.interface is not None:
        members["interface"] = ip.interface
    members["address"] = ip.address.text
    if ip.gateway is not None:
        members["gateway"] = ip.gateway.text
    return members


def result_json(result: Result, version: str) -> JsonValue:
    """Returns the result in the shape of `version`, which has to be a supported one.

    Raises InvalidConfig if an old shape cannot hold it (a result without addresses before 0.3.0).
    """
    if not at_least(version, "0.3.0"):
        return _json_020(result, version)
    modern = at_least(version, "1.0.0")
    members: dict[str, JsonValue] = {"cniVersion": version}
    if result.interfaces:
        members["interfaces"] = [_interface_json(interface, extras=modern) for interface in result.interfaces]
    if result.ips:
        members["ips"] = [_ip_json(ip, with_family=not modern) for ip in result.ips]
    if result.routes:
        members["routes"] = [_route_json(route) for route in result.routes]
    dns = _dns_json(result.dns)
    if dns or not modern:  # the older shapes always have it
        members["dns"] = dns
    return members


def _json_020(result: Result, version: str) -> JsonValue:
    members: dict[str, JsonValue] = {"cniVersion": version}
    for key, family in (("ip4", 4), ("ip6", 6)):
        first = next((ip for ip in result.ips if ip.address.family == family), None)
        if first is None:
            continue
        part: dict[str, JsonValue] = {"ip": first.address.text}
        if first.gateway is not None:
            part["gateway"] = first.gateway.text
        routes = [Route(route.dst, route.gw) for route in result.routes if route.dst.family == family]
        if routes:
            part["routes"] = [_route_json(route) for route in routes]
        members[key] = part
    if len(members) == 1:
        raise InvalidConfig(f"cniVersion: {version} has no result without addresses (use 0.3.0 or later)")
    members["dns"] = _dns_json(result.dns)
    return members
