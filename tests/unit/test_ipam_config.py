from __future__ import annotations

from typing import Any

import pytest

from cni.protocol.fields import ConfigErrors
from ipam import main
from ipam.config import lease_folder, parse_settings
from tests.unit.ipam_pool import error_of, network, request

RANGES = [[{"subnet": "10.1.2.0/24"}]]


def sets_of(ipam: object, **members: Any) -> list[tuple[str, str]]:
    return [(range_set.path, range_set.text) for range_set in parse_settings(network(ipam, **members), {}).sets]


def faults_of(ipam: object, cni_args: dict[str, str] | None = None, **members: Any) -> list[str]:
    error = error_of(lambda: parse_settings(network(ipam, **members), cni_args or {}))
    assert error.code == 7
    assert error.message.startswith("invalid network configuration: ")
    return error.message.removeprefix("invalid network configuration: ").split("; ")


def test_the_legacy_range_comes_before_ranges_and_runtime_ranges_before_both() -> None:
    ipam = {"subnet": "10.1.0.0/24", "ranges": [[{"subnet": "10.2.0.0/24"}], [{"subnet": "fd00::/64"}]]}
    runtime = {"ipRanges": [[{"subnet": "10.3.0.0/24", "rangeEnd": "10.3.0.9"}, {"subnet": "10.4.0.0/30"}]]}
    assert sets_of(ipam, runtimeConfig=runtime) == [
        ("runtimeConfig.ipRanges[0]", "10.3.0.1-10.3.0.9,10.4.0.1-10.4.0.2"),
        ("ipam", "10.1.0.1-10.1.0.254"),
        ("ipam.ranges[0]", "10.2.0.1-10.2.0.254"),
        ("ipam.ranges[1]", "fd00::1-fd00::ffff:ffff:ffff:ffff"),
    ]


def test_keys_match_in_any_case() -> None:
    ipam = {"RANGES": [[{"Subnet": "10.1.0.0/24", "RangeStart": "10.1.0.7", "rangeend": "10.1.0.8"}]]}
    assert sets_of(ipam) == [("ipam.ranges[0]", "10.1.0.7-10.1.0.8")]


def test_a_flat_list_of_runtime_ranges_gives_one_address_per_family() -> None:
    flat = [{"Subnet": "10.3.0.0/24"}, {"Subnet": "fd00::/126"}, {"Subnet": "10.4.0.0/24"}]
    assert sets_of({}, runtimeConfig={"ipRanges": flat}) == [
        ("runtimeConfig.ipRanges", "10.3.0.1-10.3.0.254,10.4.0.1-10.4.0.254"),
        ("runtimeConfig.ipRanges", "fd00::1-fd00::3"),
    ]


def test_the_single_range_of_old_needs_a_subnet_to_count() -> None:
    assert sets_of({"rangeStart": "10.9.9.9", "ranges": RANGES}) == [("ipam.ranges[0]", "10.1.2.1-10.1.2.254")]


def test_settings_hold_folder_routes_and_resolv_conf() -> None:
    ipam = {
        "ranges": RANGES,
        "dataDir": "/data",
        "resolvConf": "/etc/resolv.conf",
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "10.9.0.0/16", "gw": "10.1.2.1", "mtu": 1400}],
    }
    settings = parse_settings(network(ipam), {})
    assert settings.folder == "/data/net"
    assert settings.resolv_conf == "/etc/resolv.conf"
    assert [(route.dst.text, route.gw and route.gw.text, route.mtu) for route in settings.routes] == [
        ("0.0.0.0/0", None, 0),
        ("10.9.0.0/16", "10.1.2.1", 1400),
    ]


@pytest.mark.parametrize("ipam", [{}, {"dataDir": ""}, {"dataDir": None}, None])
def test_leases_are_in_the_reference_s_folder_by_default(ipam: object) -> None:
    assert lease_folder(network(ipam)) == "/var/lib/cni/networks/net"


def test_only_data_dir_can_hide_where_leases_are() -> None:
    broken = {"dataDir": "/data", "ranges": 5, "subnet": {}, "routes": "x"}
    assert lease_folder(network(broken, runtimeConfig=7)) == "/data/net"
    error = error_of(lambda: lease_folder(network({"dataDir": 5})))
    assert (error.code, error.message) == (7, "invalid network configuration: ipam.dataDir: expected a text")


@pytest.mark.parametrize(
    ("ipam", "members", "errors"),
    [
        (None, {}, ["ipam: IPAM config missing 'ipam' key"]),
        (5, {}, ["ipam: expected an object"]),
        ({}, {}, ["ipam: no IP ranges specified"]),
        ({"ranges": []}, {"runtimeConfig": {"ipRanges": []}}, ["ipam: no IP ranges specified"]),
        ({"ranges": [[]]}, {}, ["ipam.ranges[0]: empty range set"]),
        ({"ranges": [{"subnet": "10.1.2.0/24"}]}, {}, ["ipam.ranges[0]: expected a list of ranges"]),
        ({"ranges": [[5]]}, {}, ["ipam.ranges[0][0]: expected an object"]),
        ({"ranges": [[{}]]}, {}, ["ipam.ranges[0][0].subnet: missing, a range needs one (as in 10.1.2.0/24)"]),
        ({"ranges": [[{"subnet": 5}]]}, {}, ["ipam.ranges[0][0].subnet: expected a text"]),
        ({"subnet": 5}, {}, ["ipam.subnet: expected a text"]),
        (
            {"ranges": [[{"subnet": "10.1.0.0/24"}, {"subnet": "10.2.0.0/31"}], [{"subnet": "10.1.0.0/24"}]]},
            {
                "runtimeConfig": {"ipRanges": [[{"subnet": "x/24"}]], "ips": ["1.2.3", 7]},
                "args": {"cni": {"ips": [""]}},
            },
            [
                "runtimeConfig.ipRanges[0][0].subnet: 'x' is not an IP address",
                "ipam.ranges[0][1].subnet: Network 10.2.0.0/31 too small to allocate from",
                "ipam.ranges[1]: range set 0 overlaps with 1 (ipam.ranges[0])",
                "args.cni.ips[0]: '' is not an IP address",
                "runtimeConfig.ips[1]: expected a text",
                "runtimeConfig.ips[0]: '1.2.3' is not an IP address",
            ],
        ),
        (
            {"ranges": [[{"subnet": "10.1.0.0/24"}, {"subnet": "fd00::/64"}]]},
            {},
            ["ipam.ranges[0]: mixed address families"],
        ),
        (
            {"ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "10.2.0.0/24"}]]},
            {"version": "0.2.0"},
            ["ipam: CNI version 0.2.0 does not support more than 1 address per family"],
        ),
        (
            {"ranges": RANGES, "routes": [{"gw": "10.1.2.1"}]},
            {},
            ["ipam.routes[0].dst: a route needs a destination (as in 0.0.0.0/0)"],
        ),
        ({"ranges": RANGES}, {"runtimeConfig": 5}, ["runtimeConfig: expected an object"]),
    ],
)
def test_all_faults_are_named_at_once_with_their_paths(
    ipam: object, members: dict[str, Any], errors: list[str]
) -> None:
    assert faults_of(ipam, **members) == errors


def test_faults_of_other_rooms_hide_none_of_ours() -> None:
    errors = ConfigErrors()
    errors.add("mtu", "expected an integer")
    main.validate(request("pod", args="IP=pod"), network({}), errors)
    assert errors.messages == [
        "mtu: expected an integer",
        "ipam: no IP ranges specified",
        "CNI_ARGS.IP: 'pod' is not an IP address",
    ]


def test_two_families_are_fine_in_the_oldest_version() -> None:
    ipam = {"ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00::/64"}]]}
    assert len(sets_of(ipam, version="0.1.0")) == 2


@pytest.mark.parametrize(
    ("args", "members", "requested"),
    [
        ({}, {}, []),
        ({"IP": ""}, {}, []),
        ({"IP": "10.1.2.5"}, {}, ["10.1.2.5"]),
        ({"IP": "10.1.2.5/16"}, {}, ["10.1.2.5"]),
        ({}, {"runtimeConfig": {"ips": ["10.1.2.6/24", "fd00::6"]}}, ["10.1.2.6", "fd00::6"]),
        (
            {"IP": "10.1.2.5"},
            {"args": {"cni": {"ips": ["fd00::5"]}}, "runtimeConfig": {"IPs": ["10.1.2.6"]}},
            ["fd00::5", "10.1.2.6", "10.1.2.5"],
        ),
        ({"IP": "10.1.2.5"}, {"args": {"cni": {"ips": ["10.1.2.9"]}}}, ["10.1.2.9"]),
    ],
)
def test_requests_add_up_but_args_outrank_cni_args(
    args: dict[str, str], members: dict[str, Any], requested: list[str]
) -> None:
    settings = parse_settings(network({"ranges": RANGES}, **members), args)
    assert [ip.text for ip in settings.requested] == requested


@pytest.mark.parametrize("text", ["10.1.2.5,10.1.2.6", "10.1.2.5/33", "pod"])
def test_a_malformed_request_of_cni_args_is_named(text: str) -> None:
    assert faults_of({"ranges": RANGES}, {"IP": text})[0].startswith("CNI_ARGS.IP: ")


def test_ranges_that_the_runtime_will_bring_are_missed_only_where_a_container_is_served() -> None:
    waiting = network({}, capabilities={"ipRanges": True})
    assert parse_settings(waiting, {}, of_container=False).sets == ()
    assert "no IP ranges specified" in error_of(lambda: parse_settings(waiting, {})).message
    assert "no IP ranges specified" in error_of(lambda: parse_settings(network({}), {}, of_container=False)).message
