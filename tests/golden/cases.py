"""Golden cases: a folder has input.json, the input of podwire, plan.txt, its plan, and result.json, its result.

input.json has `environment` (CNI_*), `stdin` (the network configuration), `facts` (of the host), `lease` (the IPAM
plugin's result in the shape of the current version) and, if it is not podwire, the `program` that is called.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cni import PODWIRE
from cni.config.netconf import parse_netconf
from cni.plan.attachment import Attachment, Facts, names_of
from cni.plan.plan import Plan, plan_attachment
from cni.plan.policy import record_of
from cni.protocol.address import parse_mac
from cni.protocol.fields import ConfigErrors, Fields
from cni.protocol.owner import Owner
from cni.protocol.plugin_config import parse_plugin_config
from cni.protocol.request import parse_request
from cni.protocol.result import parse_result, result_json
from cni.protocol.versions import CURRENT

if TYPE_CHECKING:
    from cni.protocol.jsontext import JsonValue

FOLDER = Path(__file__).parent / "cases"
CASES = sorted(folder.name for folder in FOLDER.iterdir() if folder.is_dir())


class Case(NamedTuple):
    plan: Plan
    version: str

    @property
    def text(self) -> str:
        return "".join([f"{operation.describe()}\n" for operation in self.plan.operations])

    @property
    def result(self) -> JsonValue:
        return result_json(self.plan.result, self.version)


def case(name: str) -> Case:
    """Reads and plans a case."""
    return planned(json.loads((FOLDER / name / "input.json").read_text()))


def planned(data: dict[str, Any]) -> Case:
    """Plans an input in the form of input.json."""
    request = parse_request({"CNI_COMMAND": "ADD"} | data["environment"])
    network = parse_plugin_config(json.dumps(data["stdin"]).encode(), "ADD")
    errors = ConfigErrors()
    conf = parse_netconf(network, request.args, errors, data.get("program", PODWIRE))
    lease = parse_result(Fields(data["lease"], "lease", errors), CURRENT)
    errors.raise_if_any()
    owner = Owner(network.name, request.container_id, request.ifname)
    bridge_mac = data["facts"]["bridge_mac"]
    facts = Facts(data["facts"]["node"], bridge_mac and parse_mac(bridge_mac), data["facts"]["ipv6"])
    if data["facts"].get("policy"):
        facts = facts._replace(pod=record_of(owner, request.args))
    plan = plan_attachment(Attachment(owner, request.netns, conf, facts, names_of(owner, conf.mac, lease), lease))
    return Case(plan, network.version)
