"""podwired's command line: flanneld's, with every fault told at once."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cni import VERSION
from cni.agent.cli.flags import FLAGS, InvalidOptions
from cni.agent.cli.options import HelpRequested, parse_options
from cni.protocol.address import parse_ip

if TYPE_CHECKING:
    from cni.agent.cli.options import Options
    from cni.agent.stores.etcd.options import EtcdOptions

ROOT = Path(__file__).parents[2]
ADDITIONAL = {
    "nodes-file",
    "node-name",
    "conflist",
    "conflist-dir",
    "tunnel-filter",
    "tunnel-checksum-offload",
    "network-policy",
    "policy-files",
    "policy-unknown",
    "policy-log",
    "policy-counters",
    "control-socket",
    "policy-established",
    "policy-node-egress",
    "cleanup",
    "help",
}
NO_STORE = (
    "no store was chosen, etcd at http://127.0.0.1:4001,http://127.0.0.1:2379 is tried: "
    "--etcd-endpoints, --nodes-file or --kube-subnet-mgr chooses one"
)
WORDED = re.compile(r"^  -(\S+)(?: (\S+))?\n\s+(.*)$", re.MULTILINE)


def parse(*arguments: str, **environment: str) -> Options:
    return parse_options([*arguments], environment)


def etcd(*arguments: str, **environment: str) -> EtcdOptions:
    options = parse(*arguments, **environment).etcd
    assert options is not None
    return options


def errors(*arguments: str, **environment: str) -> list[str]:
    with pytest.raises(InvalidOptions) as caught:
        parse(*arguments, **environment)
    return str(caught.value).split("; ")


def asked(*arguments: str) -> str:
    with pytest.raises(HelpRequested) as caught:
        parse(*arguments)
    return str(caught.value)


def test_what_nothing_is_said_of_is_as_in_flanneld() -> None:
    options = parse()
    assert options.etcd is not None
    assert options.etcd._asdict() == {
        "endpoints": ("http://127.0.0.1:4001", "http://127.0.0.1:2379"),
        "prefix": "/coreos.com/network",
        "cafile": "",
        "certfile": "",
        "keyfile": "",
        "username": "",
        "password": "",
        "renew_margin": 60,
    }
    assert options.kube is None
    assert options.selector._asdict() == {"names": (), "patterns": (), "can_reach": None, "public_ips": ()}
    rest = {key: value for key, value in options._asdict().items() if key not in ("etcd", "kube", "selector")}
    assert rest == {
        "nodes_file": "",
        "node_name": "",
        "subnet_file": "/run/flannel/subnet.env",
        "conflist": None,
        "ip_masq": False,
        "random_fully": True,
        "forward_rules": True,
        "blackhole_route": False,
        "tunnel_filter": True,
        "tunnel_checksum_offload": True,
        "network_policy": False,
        "policy_files": "",
        "policy_unknown_open": False,
        "logs_denied": False,
        "policy_counters": False,
        "control_socket": "",
        "keeps_established": False,
        "opens_node": False,
        "healthz_ip": parse_ip("0.0.0.0"),
        "healthz_port": 0,
        "debug": False,
        "cleanup": False,
        "notices": (NO_STORE,),
    }


def reference_flags() -> dict[str, tuple[bool, str]]:
    """Returns for each flag of flanneld's help whether it takes a value, and its default."""
    where = subprocess.run([ROOT / "hack/peers", "--where"], stdout=subprocess.PIPE, text=True, check=True)
    program = Path(where.stdout.strip()) / "flanneld"
    if not program.exists():
        pytest.skip("absent: flanneld (hack/peers brings it)")
    usage = subprocess.run([program, "--help"], stderr=subprocess.PIPE, text=True, check=False).stderr
    flags = {}
    for name, value, description in WORDED.findall(usage):
        default = re.search(r'\(default "?([^")]*)"?\)$', description)
        flags[name] = (bool(value), default[1] if default else "")
    return flags


def test_every_flag_of_flanneld_is_taken_with_its_default() -> None:
    theirs = reference_flags()
    ours = {flag.name: flag for flags in FLAGS.values() for flag in flags}
    assert len(theirs) > 25
    assert ours.keys() - theirs.keys() == ADDITIONAL
    for name, (valued, default) in theirs.items():
        assert bool(ours[name].value) == valued, name
        assert default in (ours[name].default, ""), name
        unsaid = {"", "false", "0"}  # Go's help leaves these out
        assert default or ours[name].default in unsaid, name


@pytest.mark.parametrize(
    "arguments",
    [
        ("--etcd-prefix=/a", "--healthz-port=7"),
        ("-etcd-prefix=/a", "-healthz-port=7"),
        ("--etcd-prefix", "/a", "-healthz-port", "7"),
        ("--etcd-prefix", "/b", "--etcd-prefix", "/a", "--healthz-port", "0x7"),
    ],
)
def test_a_flag_has_one_or_two_hyphens_and_its_value_beside_or_behind_it(arguments: tuple[str, ...]) -> None:
    options = parse(*arguments)
    assert options.etcd is not None
    assert (options.etcd.prefix, options.healthz_port) == ("/a", 7)


def test_a_value_may_begin_with_a_hyphen_and_hold_an_equals_sign() -> None:
    options = parse("--iface-regex", "-x=1", "--iface-regex=^-y=2", "--iface", "--iface")
    assert (options.selector.patterns, options.selector.names) == (("-x=1", "^-y=2"), ("--iface",))


@pytest.mark.parametrize("text", ["1", "t", "T", "true", "TRUE", "True"])
def test_a_switch_is_on_as_in_go(text: str) -> None:
    assert parse(f"--ip-masq={text}").ip_masq
    assert parse("--ip-masq").ip_masq
    assert parse("-ip-masq").ip_masq
    assert parse(FLANNELD_IP_MASQ=text).ip_masq


@pytest.mark.parametrize("text", ["0", "f", "F", "false", "FALSE", "False"])
def test_a_switch_is_off_as_in_go(text: str) -> None:
    assert not parse(f"--iptables-forward-rules={text}").forward_rules
    assert not parse("--ip-masq", f"--ip-masq={text}").ip_masq
    assert not parse(FLANNELD_IPTABLES_FORWARD_RULES=text).forward_rules


def test_a_set_of_a_colon_is_no_named_class() -> None:
    assert parse("--iface-regex=^fd00[:]").selector.patterns == ("^fd00[:]",)


def test_every_flag_reaches_its_option() -> None:
    options = parse(
        "--etcd-endpoints=https://10.0.0.1:2379,https://[fd00::1]:2379/", "--etcd-prefix=/a/b", "--etcd-cafile=ca",
        "--etcd-certfile=cert", "--etcd-keyfile=key", "--etcd-username=who", "--etcd-password=secret",
        "--subnet-lease-renew-margin=1439", "--iface=eth0", "--iface=10.0.0.2", "--iface-regex=^a", "--iface-regex=b$",
        "--iface-can-reach=fd00::9", "--public-ip=192.0.2.1", "--public-ipv6=2001:db8::1", "--subnet-file=/s",
        "--ip-masq", "--ip-masq-fully-random-disable", "--iptables-forward-rules=false", "--ip-blackhole-route",
        "--tunnel-filter=false", "--tunnel-checksum-offload=false", "--healthz-ip=::1", "--healthz-port=65535", "-v=2",
        "--node-name=one", "--conflist=/c/one.conflist", "--conflist-dir=/d", "--cleanup",
    )  # fmt: skip
    values = options._asdict() | {"etcd": tuple(options.etcd or ()), "kube": options.kube}
    values |= {"selector": tuple(options.selector), "conflist": tuple(options.conflist or ())}
    assert values == {
        "etcd": (
            ("https://10.0.0.1:2379", "https://[fd00::1]:2379"), "/a/b", "ca", "cert", "key", "who", "secret", 1439,
        ),
        "nodes_file": "",
        "node_name": "one",
        "kube": None,
        "selector": (
            ("eth0", "10.0.0.2"), ("^a", "b$"), parse_ip("fd00::9"),
            (parse_ip("192.0.2.1"), parse_ip("2001:db8::1")),
        ),
        "subnet_file": "/s",
        "conflist": ("/c/one.conflist", "/d/one.conflist"),
        "ip_masq": True,
        "random_fully": False,
        "forward_rules": False,
        "blackhole_route": True,
        "tunnel_filter": False,
        "tunnel_checksum_offload": False,
        "network_policy": False,
        "policy_files": "",
        "policy_unknown_open": False,
        "logs_denied": False,
        "policy_counters": False,
        "control_socket": "",
        "keeps_established": False,
        "opens_node": False,
        "healthz_ip": parse_ip("::1"),
        "healthz_port": 65535,
        "debug": True,
        "cleanup": True,
        "notices": (),
    }  # fmt: skip


def test_a_flag_goes_before_the_environment_and_podwires_variable_before_flannelds() -> None:
    both = {"PODWIRED_ETCD_PREFIX": "/podwire", "FLANNELD_ETCD_PREFIX": "/flannel"}
    assert etcd("--etcd-prefix=/flag", **both).prefix == "/flag"
    assert etcd(**both).prefix == "/podwire"
    assert etcd(FLANNELD_ETCD_PREFIX="/flannel").prefix == "/flannel"
    assert etcd(PODWIRED_ETCD_PREFIX="", FLANNELD_ETCD_PREFIX="/flannel").prefix == "/flannel"
    assert etcd(PODWIRED_ETCD_PREFIX="").prefix == "/coreos.com/network"


def test_a_variable_of_a_flag_that_may_be_repeated_is_one_value_and_goes_where_the_flag_is_given() -> None:
    environment = {"FLANNELD_IFACE": "a,b", "FLANNELD_IFACE_REGEX": "x{1,2}"}
    assert parse(**environment).selector.names == ("a,b",)
    assert parse("--iface=c", **environment).selector._asdict() == {
        "names": ("c",),
        "patterns": ("x{1,2}",),
        "can_reach": None,
        "public_ips": (),
    }


def test_orders_are_given_by_flags_alone() -> None:
    """Images set variables such as FLANNELD_VERSION."""
    assert not parse(FLANNELD_VERSION="v0.28.10", FLANNELD_CLEANUP="true", FLANNELD_HELP="true").cleanup


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ("--bogus", "--bogus: unknown flag"),
        ("-bogus=1", "-bogus: unknown flag"),
        ("---ip-masq", "---ip-masq: unknown flag"),
        ("--ip-mas", "--ip-mas: unknown flag"),
        ("-v5", "-v5: unknown flag"),
        ("--ip-masq false", "'false': not a flag; a switch takes a value as in --ip-masq=false"),
        ("--", "'--': not a flag"),
        ("-", "'-': not a flag"),
        ("--=x", "'--=x': not a flag"),
        ("--iface", "--iface: needs a value, NAME|IP"),
        ("--ip-masq=maybe", "--ip-masq: 'maybe' is neither true nor false"),
        ("--ip-masq=", "--ip-masq: '' is neither true nor false"),
        ("--healthz-port=65536", "--healthz-port: '65536' is not a whole number from 0 to 65535"),
        ("--healthz-port=-1", "--healthz-port: '-1' is not a whole number from 0 to 65535"),
        ("--healthz-port=http", "--healthz-port: 'http' is not a whole number"),
        ("--healthz-ip=here", "--healthz-ip: 'here' is not an IP address"),
        ("--subnet-lease-renew-margin=0", "--subnet-lease-renew-margin: '0' is not a whole number from 1 to 1439"),
        ("--subnet-lease-renew-margin=1440", "'1440' is not a whole number from 1 to 1439"),
        ("--iptables-resync=often", "--iptables-resync: 'often' is not a whole number"),
        ("-v=high", "--v: 'high' is not a whole number"),
        ("--public-ip=fd00::1", "--public-ip: 'fd00::1' is not the IPv4 address of a node"),
        ("--public-ip=0.0.0.0", "--public-ip: '0.0.0.0' is not the IPv4 address of a node"),
        ("--public-ipv6=10.0.0.1", "--public-ipv6: '10.0.0.1' is not the IPv6 address of a node"),
        ("--iface-can-reach=gateway", "--iface-can-reach: 'gateway' is not an IP address"),
        ("--iface-regex=(", "--iface-regex: '(' is not a regular expression: missing )"),
        ("--iface-regex=eth[[:digit:]]", "has a class such as [:digit:], which is not known: write 0-9"),
        ("--iface-regex=[^[:^alpha:]]", "has a class such as [:digit:]"),
        ("--subnet-file=", "--subnet-file: is empty; expected FILE, as in /run/flannel/subnet.env"),
        ("--etcd-prefix=", "--etcd-prefix: is empty; expected PREFIX"),
        ("--etcd-endpoints=", "--etcd-endpoints: '' is not a server"),
        ("--etcd-endpoints=http://a:1,,http://b:2", "--etcd-endpoints: '' is not a server"),
        ("--etcd-endpoints=unix:///etcd", "'unix:///etcd' is not a server, as http://10.0.0.1:2379"),
        ("--etcd-endpoints=http://a:b", "'http://a:b' is not a server"),
        ("--etcd-endpoints=http://a:70000", "'http://a:70000' is not a server"),
        ("--etcd-endpoints=http://a:1/v3", "'http://a:1/v3' is not a server"),
        ("--etcd-endpoints=http://:2379", "'http://:2379' is not a server"),
        ("--etcd-endpoints=http://[fd00::1:2379", "'http://[fd00::1:2379' is not a server"),
        ("--etcd-certfile=c", "--etcd-certfile: needs --etcd-keyfile as well"),
        ("--etcd-keyfile=k", "--etcd-keyfile: needs --etcd-certfile as well"),
        ("--etcd-username=u", "--etcd-username: needs --etcd-password as well"),
        ("--etcd-password=p", "--etcd-password: needs --etcd-username as well"),
        ("--nodes-file=n --etcd-prefix=/p", "--etcd-prefix: does not go together with --nodes-file"),
    ],
)
def test_a_fault_names_the_flag_and_what_is_expected(arguments: str, error: str) -> None:
    assert error in "; ".join(errors(*arguments.split(" ")))


def test_a_fault_of_the_environment_names_the_variable() -> None:
    assert errors(FLANNELD_IP_MASQ="maybe") == ["FLANNELD_IP_MASQ: 'maybe' is neither true nor false"]
    assert errors(PODWIRED_PUBLIC_IP="x") == ["PODWIRED_PUBLIC_IP: 'x' is not an IP address"]
    assert errors("--nodes-file=n", FLANNELD_ETCD_ENDPOINTS="http://a:1") == [
        "FLANNELD_ETCD_ENDPOINTS: does not go together with --nodes-file, which stands in for etcd"
    ]


def test_all_faults_are_reported_at_once() -> None:
    messages = errors("--bogus", "word", "--healthz-port=x", "--etcd-certfile=c", "--public-ip=y", FLANNELD_V="z")
    assert [error.partition(":")[0] for error in messages if "'word'" not in error and not error.startswith("a ")] == [
        "--bogus",
        "--etcd-certfile",
        "--public-ip",
        "--healthz-port",
        "FLANNELD_V",
    ]
    assert any(error.startswith("'word': not a flag") for error in messages)


def test_no_password_is_reported() -> None:
    text = "; ".join(errors("--etcd-endpoints=http://who:secret@a:1", "--etcd-password=secret"))
    assert "--etcd-endpoints: has a user: that is for --etcd-username" in text
    assert "secret" not in text
    assert "secret" not in repr(parse("--etcd-username=who", "--etcd-password=secret"))


@pytest.mark.parametrize(
    ("arguments", "endpoints"),
    [
        ("--etcd-endpoints=a:1", ["http://a:1"]),
        ("--etcd-endpoints=a:1,10.0.0.1:2 --etcd-cafile=c", ["https://a:1", "https://10.0.0.1:2"]),
        ("--etcd-endpoints=a:1 --etcd-certfile=c --etcd-keyfile=k", ["https://a:1"]),
        ("--etcd-endpoints=https://a", ["https://a"]),
    ],
)
def test_certificates_decide_where_an_endpoint_has_no_scheme(arguments: str, endpoints: list[str]) -> None:
    assert list(etcd(*arguments.split(" ")).endpoints) == endpoints


def test_blanks_between_endpoints_are_left_out() -> None:
    assert etcd("--etcd-endpoints=http://a:1, http://b:2/").endpoints == ("http://a:1", "http://b:2")


@pytest.mark.parametrize(
    ("given", "prefix"), [("/a//b/", "/a/b"), ("a/b", "a/b"), ("//a", "/a"), ("/", ""), ("/coreos.com/", "/coreos.com")]
)
def test_a_prefix_is_cleaned_as_flannel_joins_it(given: str, prefix: str) -> None:
    assert etcd(f"--etcd-prefix={given}").prefix == prefix


def test_a_nodes_file_stands_in_for_etcd() -> None:
    options = parse("--nodes-file=/etc/nodes.json", FLANNELD_ETCD_PREFIX="")
    assert (options.etcd, options.nodes_file) == (None, "/etc/nodes.json")
    assert parse(PODWIRED_NODES_FILE="/n").etcd is None


def test_the_nodes_name_is_the_flags_the_variables_or_the_hosts() -> None:
    assert parse("--node-name=a", NODE_NAME="b").node_name == "a"
    assert parse(PODWIRED_NODE_NAME="a", NODE_NAME="b").node_name == "a"
    assert parse(NODE_NAME="b").node_name == "b"
    assert parse(NODE_NAME="").node_name == ""


def test_empty_texts_are_as_if_they_had_not_been_said() -> None:
    """As a template leaves them that has nothing to say."""
    options = parse("--iface=", "--iface-regex=", "--public-ip=", "--iface-can-reach=", "--healthz-ip=")
    assert options.selector == parse().selector
    assert options.healthz_ip == parse_ip("0.0.0.0")


def test_what_has_no_effect_is_noticed_where_it_was_said() -> None:
    assert parse("--iptables-resync=10", FLANNELD_VMODULE="a=1").notices == (
        "--iptables-resync: has no effect",
        "FLANNELD_VMODULE: has no effect",
        NO_STORE,
    )
    assert parse("-log_backtrace_at=a:1", "--nodes-file=n").notices == ("--log_backtrace_at: has no effect",)


@pytest.mark.parametrize(
    "chosen", ["--etcd-endpoints=http://127.0.0.1:2379", "--etcd-prefix=/a", "--nodes-file=n", "--cleanup"]
)
def test_a_store_that_was_chosen_is_not_asked_for(chosen: str) -> None:
    assert parse(chosen).notices == ()
    assert parse().notices == (NO_STORE,)


def test_certificates_for_a_server_without_tls_are_noticed() -> None:
    (notice,) = parse("--etcd-endpoints=http://a:1,https://b:2", "--etcd-cafile=c").notices
    assert notice.startswith("--etcd-endpoints: http://a:1 is not encrypted")


@pytest.mark.parametrize(("level", "debug"), [("0", False), ("1", True), ("10", True), ("-1", False)])
def test_a_level_above_0_means_details(level: str, debug: bool) -> None:
    assert parse(f"-v={level}").debug is debug
    assert parse("-v", level).debug is debug


@pytest.mark.parametrize("word", ["--help", "-help", "-h", "--h"])
def test_the_help_tells_of_every_flag_its_variable_and_default(word: str) -> None:
    text = asked("--bogus", word)
    lines = text.splitlines()
    for flag in [flag for flags in FLAGS.values() for flag in flags]:
        place = lines.index(f"  --{flag.name} {flag.value}".rstrip())
        assert flag.help in lines[place + 1]
        if flag.name not in ("help", "version", "cleanup"):
            assert f"PODWIRED_{flag.variable}" in lines[place + 2]
            assert not flag.default or f"(default {flag.default})" in lines[place + 2]
    assert max(map(len, lines)) <= 100


def test_the_version_is_reported() -> None:
    assert asked("--version") == asked("-version", "--bogus") == f"podwired {VERSION}"


def test_a_variable_is_spelled_as_flannelds() -> None:
    values: dict[str, Any] = {"FLANNELD_SUBNET_LEASE_RENEW_MARGIN": "7", "FLANNELD_V": "1"}
    options = parse(**values)
    assert options.etcd is not None
    assert (options.etcd.renew_margin, options.debug) == (7, True)


def test_egress_to_the_own_node_is_judged_or_open() -> None:
    assert parse("--nodes-file=/n", "--policy-node-egress=open").opens_node
    assert errors("--policy-node-egress=yes", "--nodes-file=/n") == [
        "--policy-node-egress: 'yes' is neither judged nor open"
    ]


def test_connections_that_are_no_longer_allowed_are_cut_or_kept() -> None:
    assert parse("--nodes-file=/n", "--policy-established=keep").keeps_established
    assert not parse("--nodes-file=/n", "--policy-established=cut").keeps_established
    assert errors("--policy-established=off", "--nodes-file=/n") == [
        "--policy-established: 'off' is neither cut nor keep"
    ]


def test_policies_come_from_kubernetes_or_from_files() -> None:
    options = parse("--network-policy", "--policy-files=/etc/policies", "--nodes-file=/n")
    assert (options.network_policy, options.policy_files, options.notices) == (True, "/etc/policies", ())
    in_kube = parse("--network-policy", "--kube-subnet-mgr", "--kube-api-url=http://127.0.0.1", "--node-name=one")
    assert (in_kube.network_policy, in_kube.policy_files) == (True, "")
    assert not parse("--nodes-file=/n").network_policy
    assert parse("--policy-files=/etc/policies", "--nodes-file=/n").notices == (
        "--policy-files: has no effect without --network-policy",
    )
    assert errors("--network-policy", "--nodes-file=/n") == [
        "--network-policy: needs --policy-files as well, or --kube-subnet-mgr"
    ]
    kube = ("--kube-subnet-mgr", "--kube-api-url=http://127.0.0.1", "--node-name=one")
    assert parse("--policy-unknown=open", "--nodes-file=/n").policy_unknown_open
    assert parse("--policy-log=denied", "--nodes-file=/n").logs_denied
    assert parse("--policy-counters", "--nodes-file=/n").policy_counters
    assert not parse("--nodes-file=/n").policy_counters
    assert errors("--policy-log=all", "--nodes-file=/n") == ["--policy-log: 'all' is neither off nor denied"]
    assert parse("--control-socket=/run/a.sock", "--nodes-file=/n").control_socket == "/run/a.sock"
    assert errors("--policy-unknown=ajar", "--nodes-file=/n") == ["--policy-unknown: 'ajar' is neither closed nor open"]
    assert errors("--network-policy", "--policy-files=/etc/policies", *kube) == [
        "--policy-files: does not go together with --kube-subnet-mgr"
    ]
