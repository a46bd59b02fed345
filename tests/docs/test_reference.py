"""The reference in the documents names the keys, flags and metrics that there are: no fewer, and no more."""

from __future__ import annotations

import json
import os
import re
import shlex
from typing import TYPE_CHECKING, Any

import pytest

from cni.agent.cli.flags import FLAGS
from cni.agent.cli.options import parse_options
from cni.agent.metrics import Metrics
from cni.agent.stores.static import parse_nodes
from cni.config import keys
from cni.config.bandwidth import parse_bandwidth
from cni.config.calllog import parse_calllog
from cni.config.firewall import parse_firewall
from cni.config.flannel import parse_flannel
from cni.config.netconf import PTP_KEYS, parse_netconf
from cni.config.portmap import parse_ports
from cni.config.tuning import parse_tuning
from cni.diag.entry import ASKING
from cni.protocol.callevent import CallEvent
from cni.protocol.errors import CniError, Delegated
from cni.protocol.fields import ConfigErrors, Fields
from cni.protocol.plugin_config import PluginConfig, parse_plugin_config
from cni.protocol.request import parse_request
from ipam.config import read_settings
from tests.calls import ENVIRONMENT
from tests.docs.documents import ALL, DOCUMENTS, ROOT

if TYPE_CHECKING:
    from collections.abc import Callable

CONF, AGENT, DIAG = "conf/README.md", "cni/agent/README.md", "cni/diag/README.md"
FROM_RUNTIME = {"runtimeConfig", "args"}  # no user writes them
REJECTED = {"externalSetMarkChain"}  # the text says so
WITHOUT_EFFECT = {"shapedSubnets", "unshapedSubnets"}  # the text says so
OF_EVERY_PLUGIN = {"cniVersion", "name", "capabilities", "ipam", "dns"}
CODE = re.compile(r"`([^`]+)`")


def rows(document: str, header: str) -> list[list[str]]:
    """Returns the cells of all tables with this header, row by row."""
    cells: list[list[str]] = []
    inside = False
    for line in (ROOT / document).read_text(encoding="utf-8").splitlines():
        if line.startswith("| ") and not inside:
            inside = line == header
        elif not line.startswith("|"):
            inside = False
        elif inside and not line.startswith("|---"):
            cells.append([cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
    assert cells, f"{document} has no table {header}"
    return cells


def first(cells: list[list[str]]) -> list[str]:
    """Returns the names in the first column."""
    names = [cell[0].strip("`") for cell in cells]
    assert len(names) == len(set(names)), "a name is twice in a table"
    return names


OF_BRIDGE = rows(CONF, "| key | default | `ptp` | meaning |")
OF_PODWIRE = rows(CONF, "| key | default | meaning |")
OF_HOST_LOCAL = rows(CONF, "| key of `ipam` | default | meaning |")
OF_CHAINED = rows(CONF, "| name | keys | differs from the reference |")
CAPABILITIES = rows(CONF, "| capability | in `runtimeConfig` | plugins |")


class Reads:
    """The keys that parsers ask for, by their path: what they accept, whatever a list of names may say."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.paths: set[str] = set()
        reader = Fields.raw

        def raw(fields: Fields, key: str) -> Any:
            self.paths.add(re.sub(r"\[\d+\]", "", fields.path_of(key)))
            return reader(fields, key)

        monkeypatch.setattr(Fields, "raw", raw)

    def below(self, path: str = "") -> set[str]:
        """Returns the keys of the object at a path."""
        front = f"{path}." if path else ""
        inside = {name.removeprefix(front) for name in self.paths if name.startswith(front)}
        return {name for name in inside if "." not in name}


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    return Reads(monkeypatch)


def config(**members: Any) -> PluginConfig:
    document = {"cniVersion": "1.1.0", "name": "net", "type": "podwire", **members}
    return parse_plugin_config(json.dumps(document).encode(), "ADD")


@pytest.mark.parametrize("program", ["podwire", "bridge"])
def test_the_tables_have_the_keys_that_are_read(reads: Reads, program: str) -> None:
    parse_netconf(config(), {}, ConfigErrors(), program)
    listed = set(first(OF_BRIDGE)) | (set(first(OF_PODWIRE)) if program == "podwire" else set())
    assert reads.below() - FROM_RUNTIME - REJECTED == listed


def test_ptp_has_the_keys_that_the_table_gives_it() -> None:
    marked = {row[0].strip("`").casefold() for row in OF_BRIDGE if row[2] == "yes"}
    assert marked - {"cniversion", "name"} == set(PTP_KEYS) - {key.casefold() for key in FROM_RUNTIME}


def test_keys_that_the_tables_explain_are_not_reported_as_unknown_and_no_others() -> None:
    known = {**keys.COMMON, **keys.KEYS["podwire"]}
    listed = {*first(OF_BRIDGE), *first(OF_PODWIRE)}
    assert listed <= set(known)
    assert set(keys.KEYS["podwire"]) == listed - OF_EVERY_PLUGIN | REJECTED | {"backend"}


def test_the_table_of_the_log_has_the_keys_that_are_read(reads: Reads) -> None:
    fields = config().fields(ConfigErrors())
    reads.paths.clear()
    parse_calllog(fields)
    listed = set(first(rows(CONF, "| key of every plugin | default | meaning |")))
    assert reads.below() == listed
    assert listed <= set(keys.COMMON)


def test_the_document_of_events_has_all_members_of_a_line() -> None:
    text = (ROOT / "cni/README.md").read_text(encoding="utf-8").partition("## Events\n")[2].partition("\n## ")[0]
    assert [name for name in CallEvent._fields if f"`{name}`" not in text] == []


def test_host_locals_table_has_the_keys_that_are_read(reads: Reads) -> None:
    routes, ranges = [{"dst": "0.0.0.0/0"}], [[{"subnet": "10.1.0.0/16"}]]
    ipam = {"type": "host-local", "subnet": "10.2.0.0/16", "ranges": ranges, "routes": routes}
    read_settings(config(ipam=ipam), {}, ConfigErrors())
    assert reads.below("ipam") | {"type"} == set(first(OF_HOST_LOCAL))
    assert reads.below("ipam.ranges") <= set(first(OF_HOST_LOCAL))
    (text,) = [row[2] for row in OF_HOST_LOCAL if row[0] == "`routes`"]
    assert reads.below("ipam.routes") == set(CODE.findall(text))


CHAINED: dict[str, Callable[[PluginConfig], object]] = {
    "portmap": lambda network: parse_ports(network.fields(ConfigErrors())),
    "bandwidth": lambda network: parse_bandwidth(network.fields(ConfigErrors())),
    "firewall": lambda network: parse_firewall(network.fields(ConfigErrors())),
    "tuning": lambda network: parse_tuning(network, parse_request({**ENVIRONMENT}), ConfigErrors()),
    "loopback": lambda _: None,
    "flannel": lambda network: parse_flannel(network, ConfigErrors()),
}


@pytest.mark.parametrize("program", CHAINED)
def test_the_chained_plugins_have_the_keys_of_their_row(reads: Reads, program: str) -> None:
    listed = {row[0].strip("`"): set(CODE.findall(row[1])) for row in OF_CHAINED}
    assert set(listed) == set(CHAINED)
    assert set(keys.KEYS[program]) - REJECTED - WITHOUT_EFFECT == listed[program] - {"ipam"}
    network = config()
    reads.paths.clear()
    CHAINED[program](network)
    assert reads.below() - FROM_RUNTIME - REJECTED == listed[program] - ({"backend"} if program == "portmap" else set())


def test_the_text_names_keys_that_are_rejected_or_without_effect() -> None:
    text = (ROOT / CONF).read_text(encoding="utf-8")
    assert [key for key in (*REJECTED, *WITHOUT_EFFECT) if f"`{key}`" not in text] == []


def test_the_table_of_capabilities_says_which_plugin_has_which() -> None:
    listed = {row[0].strip("`"): set(CODE.findall(row[2])) for row in CAPABILITIES}
    names = {name for names in keys.SERVED.values() for name in names}
    assert listed == {name: {program for program, served in keys.SERVED.items() if name in served} for name in names}


def test_what_a_port_mapping_has_is_in_the_table(reads: Reads) -> None:
    network = config(runtimeConfig={"portMappings": [{"hostPort": 1, "containerPort": 1}], "dns": {}})
    parse_netconf(network, {}, ConfigErrors())
    texts = {row[0].strip("`"): row[1] for row in CAPABILITIES}
    assert reads.below("runtimeConfig.portMappings") == set(CODE.findall(texts["portMappings"])) - {
        "tcp",
        "udp",
        "sctp",
    }
    assert reads.below("runtimeConfig.dns") == set(CODE.findall(texts["dns"]))
    assert reads.below("runtimeConfig.bandwidth") == set(CODE.findall(texts["bandwidth"]))


def test_the_agents_tables_have_the_keys_of_the_network_and_of_nodes(reads: Reads) -> None:
    network = {
        "Network": "10.244.0.0/16",
        "EnableIPv6": True,
        "IPv6Network": "fd00:244::/56",
        "Backend": {"Type": "vxlan"},
    }
    parse_nodes(json.dumps({**network, "nodes": [{"name": "node1"}]}).encode(), "nodes.json")
    listed = {row[0].strip("`") for row in rows(AGENT, "| key | default | meaning |")}
    read = reads.below() - {"nodes", "Backend"} | {f"Backend.{key}" for key in reads.below("Backend")}
    assert read == listed
    assert reads.below("nodes") == set(first(rows(AGENT, "| key | meaning |")))


def test_the_agents_table_has_all_flags_with_their_defaults_and_the_text_of_help() -> None:
    listed = [tuple(row) for row in rows(AGENT, "| flag | default | meaning |")]
    flags = [flag for group in FLAGS.values() for flag in group]
    expected = [(f"--{flag.name} {flag.value}".rstrip(), flag.default, flag.help) for flag in flags]
    assert [(name.strip("`"), default.strip("`"), text) for name, default, text in listed] == expected


def test_the_agents_table_has_all_metrics() -> None:
    metrics = Metrics()
    metrics.count_denied(dict)
    metrics.count_rules(dict)
    metrics.count_node(dict, list)
    metrics.count_connections(dict, dict)
    metrics.note_watches(dict)
    lines = [line.split() for line in metrics.text().decode().splitlines() if line.startswith("# TYPE ")]
    names = {line[2] for line in lines if line[2].startswith("podwired_") and not line[2].endswith("_created")}
    assert names == set(first(rows(AGENT, "| metric | meaning |")))


def test_no_document_names_a_metric_that_there_is_not() -> None:
    names = set(first(rows(AGENT, "| metric | meaning |")))
    text = "".join([(ROOT / document).read_text(encoding="utf-8") for document in DOCUMENTS])
    assert set(re.findall(r"\bpodwired_[a-z_]+", text)) <= names


def test_alerts_and_dashboard_name_no_metric_that_there_is_not() -> None:
    names = set(first(rows(AGENT, "| metric | meaning |")))
    for path in (ROOT / "conf/monitoring").iterdir():
        named = set(re.findall(r"\bpodwired_[a-z_]+", path.read_text(encoding="utf-8")))
        assert named
        assert {name.removesuffix("_bucket") for name in named} <= names


def test_the_table_of_error_codes_has_all_codes() -> None:
    listed = {int(code) for row in rows(CONF, "| code | meaning |") for code in row[0].split(", ")}
    assert listed == {kind.code for kind in CniError.__subclasses__() if kind is not Delegated} | {CniError.code}


def test_the_table_of_tools_has_all_tools() -> None:
    tools = {f"hack/{path.name}" for path in (ROOT / "hack").iterdir() if path.is_file() and os.access(path, os.X_OK)}
    assert set(first(rows("hack/README.md", "| tool | what it does |"))) == tools


@pytest.mark.parametrize("block", [block for block in ALL if block.kind == "parsed"], ids=lambda block: block.place)
def test_command_lines_that_are_not_run_are_accepted(block: Any) -> None:
    for line in block.text.splitlines():
        program, *arguments = shlex.split(line, comments=True)
        assert program == block.mark == "podwired"
        parse_options(arguments, {})


def test_the_command_line_has_the_documented_commands_and_findings() -> None:
    words = {cell.split(" ")[0] for cells in rows(DIAG, "| command | shows |") for cell in CODE.findall(cells[0])}
    assert words == set(ASKING)
    text = (ROOT / DIAG).read_text(encoding="utf-8").partition("The names of findings: ")[2].partition("\n\n")[0]
    source = "".join([path.read_text(encoding="utf-8") for path in sorted((ROOT / "cni/diag").rglob("*.py"))])
    documented = set(CODE.findall(text))
    created = set(re.findall(r'Ailment\(\s*f?"([^"]+)"', source)) - {"no-{what}"} | {"no-disk", "no-inodes"}
    assert documented == created
