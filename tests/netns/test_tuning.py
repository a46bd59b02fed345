"""tuning changes what it is asked to, tells of it, and gives back what was there before: at DEL, and when it fails."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from cni.config.tuning import ALLOWLIST
from cni.kernel import statefile
from tests.netns.faults import Calls, Case, Saboteur, lose, refuse, terminate, wrap_effects, wrap_operations
from tests.netns.runtime import (
    DUAL,
    IPV4,
    PLAIN,
    AnsweredError,
    Attachment,
    Closed,
    attachment,
    host_local,
    network,
    serve,
)
from tests.netns.state import difference, link, owners, whole

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.machine import Machine, Pod
    from tests.netns.faults import Fault, Wrap
    from tests.netns.runtime import Answer, Json, Node

    Install = Callable[[Wrap], None]

DATA_DIR = "/run/cni/tuning"
TUNNEL = ("ip", "link", "add", "tunnel", "type", "vxlan", "id", "7", "dev", "eth0", "dstport", "4789")
MAC = "02:00:00:00:00:44"
FORWARD, FILTER = "net/ipv4/ip_forward", "net/ipv4/conf/eth0/arp_filter"
SYSCTLS = {"net.ipv4.ip_forward": "1", "net.ipv4.conf.IFNAME.arp_filter": "1"}
ALL: Json = {"mac": MAC, "promisc": True, "mtu": 1400, "allmulti": True, "txQLen": 500, "sysctl": SYSCTLS}


def tuning(**settings: object) -> Json:
    """Returns the configuration of the second plugin of a list."""
    return {**network(), "type": "tuning", **settings}


class Tuned:
    """A container that podwire has attached, and the calls that tune it."""

    def __init__(self, machine: Machine, node: Node, config: Json = PLAIN) -> None:
        self.machine, self.node = machine, node
        self.pod = machine.pod()
        self.who = attachment(self.pod)
        self.previous = node.add(config, self.who)
        self.version = config["cniVersion"]

    def call(
        self, verb: str, previous: Json | None = None, who: Attachment | None = None, /, **settings: Any
    ) -> Answer:
        config = {**tuning(**settings), "cniVersion": self.version, "prevResult": previous or self.previous}
        return self.node.call(verb, config, who or self.who, program="tuning")

    def add(self, previous: Json | None = None, /, **settings: Any) -> Json:
        return self.call("ADD", previous, **settings).succeeded().content

    def seen(self) -> dict[str, Any]:
        """Returns what the container has, by the names of the configuration."""
        state = link(self.pod, "eth0")
        return {
            "mac": state["address"],
            "promisc": "PROMISC" in state["flags"],
            "mtu": state["mtu"],
            "allmulti": "ALLMULTI" in state["flags"],
            "txQLen": state.get("txqlen", 0),
            "sysctl": {FORWARD: self.sysctl(FORWARD), FILTER: self.sysctl(FILTER)},
        }

    def sysctl(self, key: str) -> str:
        return self.pod.run("cat", f"/proc/sys/{key}").stdout.strip()

    @property
    def file(self) -> str:
        return f"{DATA_DIR}/{self.who.container}_eth0.json"

    def kept(self) -> Json:
        """Returns the content of the file with the originals, or nothing."""
        read = self.machine.run("cat", self.file, check=False)
        content: Json = json.loads(read.stdout) if read.returncode == 0 else {}
        return content


@pytest.fixture
def tuned(machine: Machine, node: Node) -> Tuned:
    """Returns a container that is attached and not yet tuned."""
    return Tuned(machine, node)


def prepare(machine: Machine, file: str, content: str) -> None:
    machine.run("mkdir", "-p", os.path.dirname(file))
    machine.run("sh", "-c", f"cat > {file}", stdin=content)


ONE_BY_ONE: dict[str, tuple[Json, Json]] = {
    "mac": ({"mac": MAC}, {"mac": MAC}),
    "promisc": ({"promisc": True}, {"promisc": True}),
    "mtu": ({"mtu": 1400}, {"mtu": 1400}),
    "a larger mtu": ({"mtu": 9000}, {"mtu": 9000}),
    "allmulti": ({"allmulti": True}, {"allmulti": True}),
    "txQLen": ({"txQLen": 500}, {"txQLen": 500}),
    "no queue": ({"txQLen": 0}, {"txQLen": 0}),
    "sysctl": ({"sysctl": {"net.ipv4.ip_forward": "1"}}, {"sysctl": {FORWARD: "1", FILTER: "0"}}),
    "sysctl of the interface": (
        {"sysctl": {"net/ipv4/conf/IFNAME/arp_filter": "1"}},
        {"sysctl": {FORWARD: "0", FILTER: "1"}},
    ),
    "arguments": ({"args": {"cni": {"mac": MAC, "mtu": 1300}}, "mtu": 1400}, {"mac": MAC, "mtu": 1300}),
    "all": (ALL, {**ALL, "sysctl": {FORWARD: "1", FILTER: "1"}}),
    "nothing": ({"promisc": False, "mtu": 0, "mac": "", "sysctl": {}}, {}),
}


@pytest.mark.parametrize(("settings", "changed"), ONE_BY_ONE.values(), ids=ONE_BY_ONE)
def test_each_value_is_applied_checked_kept_and_restored(tuned: Tuned, settings: Json, changed: Json) -> None:
    before, whole_before = tuned.seen(), whole(tuned.machine)
    result = tuned.add(**settings)
    assert tuned.seen() == {**before, **changed}
    assert tuned.call("CHECK", result, **settings).code == 0
    kept = tuned.kept()
    assert kept.pop("owner", "podwire ").startswith("podwire ")
    assert kept.pop("netns", "1").isdigit()
    sysctls = kept.pop("sysctl", {})
    assert kept == {key: before[key] for key in changed if key != "sysctl"}
    assert sysctls == {key: "0" for key, value in changed.get("sysctl", {}).items() if value == "1"}
    tuned.call("DEL", result, **settings).succeeded()
    assert tuned.seen() == before
    assert difference(whole_before, whole(tuned.machine)) == []
    assert tuned.kept() == {}
    tuned.call("DEL", result, **settings).succeeded()


def test_false_and_what_is_so_already_are_restored_as_well(tuned: Tuned) -> None:
    tuned.pod.run("ip", "link", "set", "eth0", "allmulticast", "on", "promisc", "on")
    before = tuned.seen()
    result = tuned.add(allmulti=False, promisc=True)
    assert tuned.seen() == {**before, "allmulti": False}
    tuned.pod.run("ip", "link", "set", "eth0", "promisc", "off")
    tuned.call("DEL", result).succeeded()
    assert tuned.seen() == before


def test_the_answer_has_the_mac_address_and_the_mtu(machine: Machine, node: Node) -> None:
    tuned = Tuned(machine, node, {**PLAIN, "mtu": 1450})
    bridge, host, container = tuned.previous["interfaces"]
    expected = {**container, "mac": MAC} | ({"mtu": 1400} if "mtu" in container else {})
    assert tuned.add(mac=MAC.upper(), mtu=1400) == {**tuned.previous, "interfaces": [bridge, host, expected]}
    given = {**tuned.previous, "interfaces": [bridge, host, {**container, "mtu": 1450}]}
    assert tuned.add(given, mtu=1400)["interfaces"][2]["mtu"] == 1400


@pytest.mark.parametrize("version", ["0.2.0", "0.3.1", "0.4.0", "1.0.0"])
def test_the_answer_has_the_shape_of_its_version(machine: Machine, node: Node, version: str) -> None:
    tuned = Tuned(machine, node, {**PLAIN, "cniVersion": version})
    result = tuned.add(mac=MAC)
    assert [interface["mac"] for interface in result.get("interfaces", ())][2:] == ([] if version == "0.2.0" else [MAC])
    assert {**result, "interfaces": 0} == {**tuned.previous, "interfaces": 0}
    assert tuned.seen()["mac"] == MAC


@pytest.mark.parametrize(
    ("ipam", "mtu", "is_noted"), [(DUAL, 1279, True), (DUAL, 1280, False), (host_local(IPV4), 68, False)]
)
def test_an_mtu_that_takes_ipv6_away_is_reported(
    machine: Machine, node: Node, ipam: Json, mtu: int, is_noted: bool
) -> None:
    tuned = Tuned(machine, node, network(ipam=ipam))
    answer = tuned.call("ADD", mtu=mtu).succeeded()
    assert ("eth0 loses 2001:db8:1::2/64" in answer.stderr) is is_noted
    assert tuned.seen()["mtu"] == mtu


def test_the_container_is_reached_by_its_new_address(machine: Machine, node: Node) -> None:
    tuned = Tuned(machine, node)
    tuned.add(mac=MAC)
    tuned.pod.serve(8080)
    address = tuned.pod.addresses()[0].partition("/")[0]
    assert machine.ask(address, 8080) == "10.1.2.1"


DIFFERENCES = {
    "mac": ("ip link set eth0 address 02:00:00:00:00:45", f"eth0 has address 02:00:00:00:00:45, not address {MAC}"),
    "promisc": ("ip link set eth0 promisc off", "eth0 has promisc off, not promisc on"),
    "mtu": ("ip link set eth0 mtu 1401", "eth0 has mtu 1401, not mtu 1400"),
    "allmulti": ("ip link set eth0 allmulticast off", "eth0 has allmulticast off, not allmulticast on"),
    "txQLen": ("ip link set eth0 txqueuelen 501", "eth0 has txqueuelen 501, not txqueuelen 500"),
    "two": ("ip link set eth0 mtu 1401 promisc off",
            "eth0 has promisc off, not promisc on; mtu 1401, not mtu 1400"),
    "sysctl": ("sysctl -qw net.ipv4.ip_forward=0", f"the container's {FORWARD} is 0, not 1"),
    "link": ("ip link delete eth0", f"eth0 is gone; the container's {FILTER} is gone"),
}  # fmt: skip


@pytest.mark.parametrize(("command", "difference"), DIFFERENCES.values(), ids=DIFFERENCES)
def test_check_names_what_differs(tuned: Tuned, command: str, difference: str) -> None:
    result = tuned.add(**ALL)
    tuned.pod.run(*command.split())
    answer = tuned.call("CHECK", result, **ALL)
    assert (answer.code, answer.message) == (101, f"the container's network is not as ADD made it: {difference}")


def test_check_asks_for_what_is_configured_alone(tuned: Tuned) -> None:
    """A packet capture makes an interface promiscuous, and is nobody's fault."""
    tuned.pod.run("ip", "link", "set", "eth0", "promisc", "on", "allmulticast", "on", "mtu", "1300")
    assert tuned.call("CHECK", promisc=False).code == 0


def test_several_values_of_a_setting_are_compared_as_words(tuned: Tuned) -> None:
    settings = {"sysctl": {"net.ipv4.ip_local_port_range": "2000  3000"}}
    result = tuned.add(**settings)
    assert tuned.call("CHECK", result, **settings).code == 0
    assert tuned.sysctl("net/ipv4/ip_local_port_range").split() == ["2000", "3000"]
    tuned.call("DEL", result, **settings).succeeded()
    assert tuned.sysctl("net/ipv4/ip_local_port_range").split() == ["32768", "60999"]


SPELLED = {
    "a hexadecimal number": ({"net.ipv4.conf.IFNAME.arp_announce": "0x2"}, "arp_announce"),
    "an octal number": ({"net.ipv4.ip_default_ttl": "0100"}, "ip_default_ttl"),
    "ranges that meet": ({"net.ipv4.ip_local_reserved_ports": "8080,8081,8082"}, "ip_local_reserved_ports"),
    "a range, and what is in it": ({"net.ipv4.ip_local_reserved_ports": "9000-9002,9001"}, "ip_local_reserved_ports"),
    "spaces": ({"net.ipv4.ip_local_port_range": " 2000   3000 "}, "ip_local_port_range"),
}


@pytest.mark.parametrize(("sysctls", "name"), SPELLED.values(), ids=SPELLED)
def test_check_takes_what_the_kernel_made_of_a_value_and_finds_what_changed_later(
    tuned: Tuned, sysctls: dict[str, str], name: str
) -> None:
    result = tuned.add(sysctl=sysctls)
    assert tuned.call("CHECK", result, sysctl=sysctls).message == ""
    key = next(iter(sysctls)).replace(".", "/").replace("IFNAME", "eth0")
    now = tuned.sysctl(key)
    other = {"ip_local_reserved_ports": "1", "ip_local_port_range": "2000 3001"}.get(name, "1")
    tuned.pod.run("sh", "-c", f"echo {other} > /proc/sys/{key}")
    assert tuned.sysctl(key) != now
    assert name in tuned.call("CHECK", result, sysctl=sysctls).message
    tuned.call("DEL", result, sysctl=sysctls).succeeded()
    assert tuned.kept() == {}


def test_a_setting_that_a_later_one_changes_is_as_the_kernel_made_it(tuned: Tuned) -> None:
    sysctls = {"net.ipv4.conf.IFNAME.forwarding": "0", "net.ipv4.conf.all.forwarding": "1"}
    result = tuned.add(sysctl=sysctls)
    assert tuned.sysctl("net/ipv4/conf/eth0/forwarding") == "1"
    assert tuned.call("CHECK", result, sysctl=sysctls).message == ""


def test_a_setting_that_has_gone_with_its_interface_is_missed(tuned: Tuned) -> None:
    settings = {"sysctl": {"net.ipv4.conf.IFNAME.arp_filter": "1"}}
    result = tuned.add(**settings)
    tuned.pod.run("ip", "link", "delete", "eth0")
    answer = tuned.call("CHECK", result, **settings)
    assert (answer.code, answer.message) == (
        101,
        f"the container's network is not as ADD made it: the container's {FILTER} is gone",
    )


def test_without_the_file_a_number_is_still_a_number(tuned: Tuned) -> None:
    sysctls = {"net.ipv4.ip_default_ttl": "0100"}
    result = tuned.add(sysctl=sysctls)
    tuned.machine.run("rm", tuned.file)
    assert tuned.call("CHECK", result, sysctl=sysctls).status == 0


@pytest.mark.parametrize("content", ["as kept", "of the reference"])
def test_a_container_that_has_the_path_by_now_is_left_as_it_is(tuned: Tuned, content: str) -> None:
    result = tuned.add(**ALL)
    if content != "as kept":
        prepare(tuned.machine, tuned.file, json.dumps({"mac": "02:00:00:00:00:99", "mtu": 1300, "promisc": True}))
    living = tuned.machine.pod()
    tuned.node.add(PLAIN, attachment(living))
    before = link(living, "eth0"), living.run("cat", f"/proc/sys/{FORWARD}").stdout
    living.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
    tuned.pod.remove()
    tuned.call("DEL", result, tuned.who._replace(netns=living.path)).succeeded()
    assert link(living, "eth0") == before[0]
    assert living.run("cat", f"/proc/sys/{FORWARD}").stdout == "1\n"
    assert tuned.kept() == {}


def test_what_another_plugin_has_attached_is_restored_as_well(tuned: Tuned) -> None:
    before = tuned.seen()
    result = tuned.add(**ALL)
    (port,) = owners(tuned.machine)
    tuned.machine.run("ip", "link", "set", port, "alias", "")
    tuned.call("DEL", result, **ALL).succeeded()
    assert tuned.seen() == before


def test_a_setting_that_was_empty_is_emptied_again(tuned: Tuned) -> None:
    settings = {"sysctl": {"net.ipv4.ip_local_reserved_ports": "8080,9000-9010"}}
    result = tuned.add(**settings)
    assert tuned.sysctl("net/ipv4/ip_local_reserved_ports") == "8080,9000-9010"
    tuned.call("DEL", result, **settings).succeeded()
    assert tuned.sysctl("net/ipv4/ip_local_reserved_ports") == ""


def test_a_setting_that_can_only_be_written_is_written(tuned: Tuned) -> None:
    settings = {"sysctl": {"net.ipv4.route.flush": "1"}}
    result = tuned.add(**settings)
    assert list(tuned.kept()) == ["owner", "netns"]
    assert tuned.call("CHECK", result, **settings).code == 0
    tuned.call("DEL", result, **settings).succeeded()


ALLOWED = r"""
^net\.ipv4\.conf\.IFNAME\.[a-z_]*$
  ip_forward

"""


@pytest.mark.parametrize(
    ("lines", "refused"),
    [
        (ALLOWED, []),
        (r"^net\.ipv4\.ip_forward$", ["net.ipv4.conf.IFNAME.arp_filter"]),
        ("\n", list(SYSCTLS)),
        (r"conf/eth0", list(SYSCTLS)),
    ],
    ids=["both", "one", "an empty list", "as it is written"],
)
def test_the_allowlist_says_what_may_be_set(tuned: Tuned, lines: str, refused: list[str]) -> None:
    prepare(tuned.machine, ALLOWLIST, lines)
    before = whole(tuned.machine)
    answer = tuned.call("ADD", sysctl=SYSCTLS)
    errors = "; ".join(f"sysctl.{key}: is not allowed by {ALLOWLIST}" for key in refused)
    assert answer.message == (f"invalid network configuration: {errors}" if refused else "")
    assert answer.code == (7 if refused else 0)
    assert (difference(before, whole(tuned.machine)) == []) == bool(refused)
    assert tuned.node.call("STATUS", tuning(sysctl=SYSCTLS), program="tuning").code == answer.code


def test_an_allowlist_that_cannot_be_read_allows_nothing(tuned: Tuned) -> None:
    tuned.machine.run("mkdir", "-p", ALLOWLIST)
    answer = tuned.call("ADD", sysctl=SYSCTLS)
    assert (answer.code, answer.message) == (5, f"{ALLOWLIST}: Is a directory")


def test_what_was_allowed_is_checked_and_restored_when_it_is_no_longer(tuned: Tuned) -> None:
    before = tuned.seen()
    result = tuned.add(sysctl=SYSCTLS)
    prepare(tuned.machine, ALLOWLIST, "nothing")
    assert tuned.call("CHECK", result, sysctl=SYSCTLS).code == 0
    tuned.call("DEL", result, sysctl=SYSCTLS).succeeded()
    assert tuned.seen() == before


@pytest.mark.parametrize(
    ("settings", "code", "message"),
    [
        ({**ALL, "sysctl": {**SYSCTLS, "net.ipv4.nothing": "1"}}, 100, "No such file or directory"),
        ({**ALL, "sysctl": {**SYSCTLS, "net.ipv4.ip_default_ttl": "256"}}, 100, "Invalid argument"),
        ({**ALL, "sysctl": {**SYSCTLS, "net.ipv4.tcp_available_congestion_control": "x"}}, 100, "Permission denied"),
        ({**ALL, "sysctl": {**SYSCTLS, "vm.swappiness": "1"}}, 7, "not a sysctl of the network"),
        ({**ALL, "dataDir": "/proc/nowhere"}, 5, "/proc/nowhere"),
    ],
)
def test_a_failure_leaves_everything_as_it_was(tuned: Tuned, settings: Json, code: int, message: str) -> None:
    tuned.machine.run("mkdir", "-p", DATA_DIR)
    before, seen = whole(tuned.machine), tuned.seen()
    answer = tuned.call("ADD", **settings)
    assert (answer.code, message in answer.message) == (code, True), answer
    assert "could be undone" not in answer.message
    assert tuned.seen() == seen
    assert difference(before, whole(tuned.machine)) == []
    assert tuned.machine.files(DATA_DIR) == [f"{DATA_DIR}/"]


def test_a_refused_link_setting_leaves_everything_as_it_was(tuned: Tuned) -> None:
    """A tunnel takes all but an MTU that is larger than its carrier's; what was set before is set back."""
    created = tuned.pod.run(*TUNNEL, check=False)
    if created.returncode:
        pytest.skip(f"no vxlan: {created.stderr}")
    tuned.machine.run("mkdir", "-p", DATA_DIR)
    shown, before = link(tuned.pod, "tunnel"), whole(tuned.machine)
    answer = tuned.call("ADD", None, tuned.who._replace(interface="tunnel"), **{**ALL, "mtu": 9000})
    step = f"ip -n CONTAINER link set tunnel address {MAC} promisc on mtu 9000 allmulticast on txqueuelen 500: Invalid"
    assert (answer.code, step in answer.message) == (100, True), answer
    assert link(tuned.pod, "tunnel") == shown
    assert difference(before, whole(tuned.machine)) == []
    assert tuned.machine.files(DATA_DIR) == [f"{DATA_DIR}/"]


def test_an_answer_that_nobody_hears_leaves_everything_as_it_was(tuned: Tuned) -> None:
    before = tuned.seen()
    config = {**tuning(**ALL), "prevResult": tuned.previous}
    assert tuned.node.call("ADD", config, tuned.who, program="tuning", stdout=Closed()).status == 1
    assert tuned.seen() == before
    assert tuned.kept() == {}


def faulty_adds(install: Install, fault: Fault, config: Json, environment: dict[str, str]) -> list[Case]:
    """Fails each effect of an ADD in an ADD of its own, until one has no more to fail. To be called in a machine.

    Left alone is the reading of settings: what cannot be read may be what can only be written.
    """
    saboteur = Saboteur(fault)
    cases: list[Case] = []
    install(lambda name, function: function if name == "sysctl.read" else saboteur.wrap(name, function))
    if install is wrap_effects:
        vars(statefile)["os"] = Calls(vars(statefile)["os"], saboteur.wrap)
    for number in range(1000):
        saboteur.aim_at(number)
        answer = serve(environment, config, "tuning")
        if not saboteur.victim:
            saboteur.aim_at(-1)
            serve({**environment, "CNI_COMMAND": "DEL"}, config, "tuning").succeeded()
            return cases
        cases.append(Case(number, saboteur.victim, answer))
        assert os.listdir(DATA_DIR) == [], cases[-1]
    raise AssertionError("an ADD has no end")


@pytest.mark.parametrize(
    ("install", "fault"),
    [(wrap_effects, refuse), (wrap_effects, lose), (wrap_effects, terminate), (wrap_operations, lose)],
    ids=["refused", "answer lost", "SIGTERM", "operation failed late"],
)
def test_whatever_fails_everything_is_as_before(tuned: Tuned, install: Install, fault: Fault) -> None:
    tuned.machine.run("mkdir", "-p", DATA_DIR)
    before, seen = whole(tuned.machine), tuned.seen()
    config = {**tuning(**ALL), "prevResult": tuned.previous}
    cases = tuned.machine.call(faulty_adds, install, fault, config, tuned.who.environment("ADD"))
    assert len(cases) >= (4 if install is wrap_operations else 20), cases
    wrong = [str(case) for case in cases if case.answer.status == 0 or "could be undone" in case.answer.message]
    assert wrong == []
    assert tuned.seen() == seen
    assert difference(before, whole(tuned.machine)) == []
    assert tuned.machine.files(DATA_DIR) == [f"{DATA_DIR}/"]


@pytest.mark.parametrize("folder", [DATA_DIR, "/run"], ids=["in its folder", "without a folder"])
def test_the_file_is_in_the_references_format(tuned: Tuned, folder: str) -> None:
    before = tuned.seen()
    tuned.machine.run("mkdir", "-p", folder)
    tuned.add(**ALL)
    mode = tuned.machine.run("stat", "-c", "%a", tuned.file).stdout.strip()
    assert mode == "600"
    kept = tuned.kept()
    assert list(kept) == ["mac", "promisc", "mtu", "allmulti", "txQLen", "sysctl", "owner", "netns"]
    assert {**kept, "owner": "", "netns": ""} == {**before, "owner": "", "netns": ""}
    assert tuned.machine.files(DATA_DIR)[1:] == []


def test_a_file_of_the_reference_is_restored(tuned: Tuned) -> None:
    before = tuned.seen()
    prepare(tuned.machine, tuned.file, '{\n "mac": "02:00:00:00:00:77",\n "mtu": 1444\n}')
    tuned.call("DEL").succeeded()
    assert tuned.seen() == {**before, "mac": "02:00:00:00:00:77", "mtu": 1444}
    assert tuned.kept() == {}


def test_an_interface_that_is_tuned_twice_has_its_first_values_again(tuned: Tuned) -> None:
    before = tuned.seen()
    first = tuned.add(mtu=1400, sysctl=SYSCTLS)
    second = tuned.add(first, mtu=1300, promisc=True)
    assert tuned.seen()["mtu"] == 1300
    for _ in range(2):
        tuned.call("DEL", second).succeeded()
    assert tuned.seen() == before


def test_a_second_plugin_that_fails_leaves_what_the_first_has_kept(tuned: Tuned) -> None:
    before = tuned.seen()
    first = tuned.add(mtu=1400)
    kept = tuned.kept()
    assert tuned.call("ADD", first, mtu=1300, sysctl={"net.nothing": "1"}).code == 100
    assert tuned.kept() == kept
    assert tuned.seen() == {**before, "mtu": 1400}


def gone_link(tuned: Tuned) -> Attachment:
    tuned.pod.run("ip", "link", "delete", "eth0")
    return tuned.who


def gone_namespace(tuned: Tuned) -> Attachment:
    tuned.pod.remove()
    return tuned.who


def no_namespace(tuned: Tuned) -> Attachment:
    return tuned.who._replace(netns="")


def host_namespace(tuned: Tuned) -> Attachment:
    return tuned.who._replace(netns="/proc/self/ns/net")


@pytest.mark.parametrize("lose_it", [gone_link, gone_namespace, no_namespace, host_namespace])
def test_what_is_gone_is_no_obstacle(tuned: Tuned, lose_it: Callable[[Tuned], Attachment]) -> None:
    result = tuned.add(**ALL)
    who = lose_it(tuned)
    tuned.call("DEL", result, who, **ALL).succeeded()
    assert tuned.kept() == {}
    tuned.call("DEL", result, who, **ALL).succeeded()


def test_without_the_interface_what_is_the_kernels_is_restored(tuned: Tuned) -> None:
    result = tuned.add(**ALL)
    tuned.pod.run("ip", "link", "delete", "eth0")
    tuned.call("DEL", result, **ALL).succeeded()
    assert tuned.sysctl(FORWARD) == "0"


@pytest.mark.parametrize("content", ["", "garbage", '{"mtu": "x"}', "[]"])
def test_garbage_is_no_obstacle(tuned: Tuned, content: str) -> None:
    before = tuned.seen()
    prepare(tuned.machine, tuned.file, content)
    tuned.call("DEL").succeeded()
    assert tuned.seen() == before
    assert tuned.machine.files(DATA_DIR) == [f"{DATA_DIR}/"]


@pytest.mark.parametrize("settings", [{"mtu": "x"}, {"sysctl": {"vm.a": 1}}, {"dataDir": "/etc/hostname/x"}, {}])
def test_release_needs_no_valid_configuration(tuned: Tuned, settings: Json) -> None:
    assert tuned.call("DEL", **settings).code == 0


def test_what_cannot_be_restored_is_reported_once_and_keeps_nothing_else_from_it(tuned: Tuned) -> None:
    before = tuned.seen()
    prepare(tuned.machine, tuned.file, '{"mtu": 70000, "txQLen": 77, "sysctl": {"net/ipv4/ip_default_ttl": "0"}}')
    answer = tuned.call("DEL")
    assert answer.code == 100
    assert answer.message == (
        "not everything of the attachment could be released: ip -n CONTAINER link set eth0 mtu 70000: Invalid argument"
        " (mtu greater than device maximum); ip netns exec CONTAINER sysctl -w net.ipv4.ip_default_ttl=0:"
        " Invalid argument"
    )
    assert tuned.seen() == {**before, "txQLen": 77}
    tuned.call("DEL").succeeded()


def test_settings_are_the_containers_and_not_the_hosts(tuned: Tuned) -> None:
    tuned.machine.run("sysctl", "-qw", "net.ipv4.tcp_ecn=2")
    tuned.add(sysctl={"net.ipv4.tcp_ecn": "1"})
    assert tuned.sysctl("net/ipv4/tcp_ecn") == "1"
    assert tuned.machine.run("cat", "/proc/sys/net/ipv4/tcp_ecn").stdout == "2\n"


def half_written(file: str) -> str:
    """Returns the path of the temporary file that a killed writer leaves."""
    folder, _, name = file.rpartition("/")
    return f"{folder}/.{name}.new"


def test_a_killed_add_leaves_nothing_beside_the_file(tuned: Tuned) -> None:
    """Its name is known, so the next ADD writes over it and DEL removes it."""
    prepare(tuned.machine, half_written(tuned.file), '{"mtu": 14')
    tuned.add(mtu=1400)
    assert [line.split()[0] for line in tuned.machine.files(DATA_DIR)] == [tuned.file]
    prepare(tuned.machine, half_written(tuned.file), '{"mtu": 14')
    tuned.call("DEL").succeeded()
    assert tuned.machine.files(DATA_DIR) == [f"{DATA_DIR}/"]


def test_collecting_removes_what_belongs_to_no_valid_attachment(tuned: Tuned, node: Node) -> None:
    """The folder is shared by all networks: files of others and of the reference stay, and what is no file."""
    machine, files = tuned.machine, {}
    for name in ("valid", "stale", "other"):
        pod: Pod = machine.pod(name)
        node.add(PLAIN, attachment(pod))
        config = {**tuning(mtu=1400), "prevResult": tuned.previous, "name": "second" if name == "other" else "net"}
        node.call("ADD", config, attachment(pod), program="tuning").succeeded()
        files[name] = f"{DATA_DIR}/{name}_eth0.json"
    prepare(machine, f"{DATA_DIR}/theirs_eth0.json", '{"mtu": 1500}')
    prepare(machine, f"{DATA_DIR}/garbage_eth0.json", "{")
    machine.run("mkdir", f"{DATA_DIR}/folder.json")
    valid = [{"containerID": "valid", "ifname": "eth0"}]
    node.call("GC", tuning(**{"cni.dev/valid-attachments": valid}), program="tuning").succeeded()
    left = sorted(line.split()[0] for line in machine.files(DATA_DIR))
    theirs = [f"{DATA_DIR}/{name}" for name in ("folder.json/", "garbage_eth0.json", "theirs_eth0.json")]
    assert left == sorted([files["valid"], files["other"], *theirs])


def test_collecting_without_a_list_or_a_folder_removes_nothing(tuned: Tuned) -> None:
    node, none = tuned.node, {**tuning(), "cni.dev/valid-attachments": None}
    node.call("GC", none, program="tuning").succeeded()
    tuned.add(mtu=1400)
    node.call("GC", tuning(), program="tuning").succeeded()
    assert tuned.kept()["mtu"] == 1500
    node.call("GC", none, program="tuning").succeeded()
    assert tuned.kept() == {}


def test_release_of_one_attachment_looks_at_no_other_file(tuned: Tuned) -> None:
    """DEL knows the file by its name, at a cost that does not grow."""
    tuned.add(mtu=1400)
    copy = f"{DATA_DIR}/copy_eth0.json"
    tuned.machine.run("cp", tuned.file, copy)
    tuned.call("DEL").succeeded()
    assert [line.split()[0] for line in tuned.machine.files(DATA_DIR)] == [copy]


def test_a_missing_interface_is_named(tuned: Tuned) -> None:
    who = tuned.who._replace(interface="eth9")
    with pytest.raises(AnsweredError, match=r"keep the settings of eth9 in .*: No such device; the interface is gone"):
        tuned.call("ADD", None, who, mtu=1400).succeeded()
    assert tuned.machine.files(DATA_DIR) == []


def test_without_an_interface_settings_of_the_kernel_can_be_set(machine: Machine, node: Node) -> None:
    pod = machine.pod()
    config = {**tuning(sysctl={"net.ipv4.ip_forward": "1"}), "prevResult": {"cniVersion": "1.1.0"}}
    node.call("ADD", config, attachment(pod), program="tuning").succeeded()
    assert pod.run("cat", f"/proc/sys/{FORWARD}").stdout == "1\n"


def test_a_list_with_tuning_is_checked_and_released_as_a_whole(machine: Machine, node: Node) -> None:
    """CHECK and DEL give the first plugin the last one's result."""
    config = {**PLAIN, "ipam": host_local(IPV4), "ipMasq": True}
    tuned = Tuned(machine, node, config)
    result = tuned.add(**ALL)
    assert node.call("CHECK", {**config, "prevResult": result}, tuned.who).code == 0
    tuned.call("DEL", result, **ALL).succeeded()
    node.call("DEL", {**config, "prevResult": result}, tuned.who).succeeded()
    assert machine.files(DATA_DIR) == [f"{DATA_DIR}/"]
