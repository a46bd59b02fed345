"""podwire: a CNI plugin and a node agent. Starting Python costs a call more than its work does, so the modules that an
ADD or DEL loads are written in a few idioms:

- `TYPE_CHECKING = False` stands in for typing's constant: type checkers know the name, and typing is not loaded.
- `import posix as os` has the system calls of os without the abstract classes of collections, which cost 0.9 ms.
- `tuple([...])` takes a list: a generator would be resumed once for each element.
- `__import__(name)` and a look into sys.modules load a module by its name without importlib.
- Modules of features that few networks use are imported in the functions that need them. Records are declared with
  cni.protocol.record, not with typing or dataclasses, and only where a name for each field is worth a class.

The decisions in cni/README.md have the figures. tests/rules/test_modules.py lists the modules of each call,
tests/rules/test_source.py the imports that are allowed.
"""

VERSION = "0.1.0"

# The names of programs: of the executable (argv[0]), and as `type` in a configuration.
AGENT, PODWIRE, PTP, HOST_LOCAL = "podwired", "podwire", "ptp", "host-local"
# In the specification's words: an interface plugin creates the container's interface, a chained plugin adjusts it; a
# delegating plugin calls an interface plugin with a configuration of its own.
INTERFACE, CHAINED, DELEGATING, IPAM = "interface", "chained", "delegating", "ipam"
# The version of the reference plugins in whose place these programs stand: nerdctl asks `firewall` for it, and lets
# networks have what that version can do. Semantic versioning leaves what follows the plus sign to us.
REFERENCE = "1.9.1"
# Name: kind, module, version of the reference plugin in whose place it stands (empty: none, or of another project).
PROGRAMS = {
    PODWIRE: (INTERFACE, "cni.plugins.bridge", ""),
    "bridge": (INTERFACE, "cni.plugins.bridge", REFERENCE),
    PTP: (INTERFACE, "cni.plugins.bridge", REFERENCE),
    HOST_LOCAL: (IPAM, "ipam.main", REFERENCE),
    "portmap": (CHAINED, "cni.plugins.portmap", REFERENCE),
    "bandwidth": (CHAINED, "cni.plugins.bandwidth", REFERENCE),
    "firewall": (CHAINED, "cni.plugins.firewall", REFERENCE),
    "tuning": (CHAINED, "cni.plugins.tuning", REFERENCE),
    "loopback": (CHAINED, "cni.plugins.loopback", REFERENCE),
    "flannel": (DELEGATING, "cni.plugins.flannel", ""),
}
NONE = ("", "", "")


def kind_of(program: str) -> str:
    """Returns the kind of a program; empty if podwire has no program of that name."""
    return PROGRAMS.get(program, NONE)[0]


def reference_of(program: str) -> str:
    """Returns the version of the reference plugin in whose place a program stands; empty if there is none."""
    return PROGRAMS.get(program, NONE)[2]
