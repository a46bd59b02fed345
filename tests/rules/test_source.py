"""The architecture, held to the source: who imports whom, who may do what, how large things grow."""

from __future__ import annotations

import ast
import sys
from typing import TYPE_CHECKING

from tests.rules.source import FILES, ONE_WORKER, calls, faults, functions, imports, is_module, module_of, nodes, tree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = ONE_WORKER
FILE_LINES, FUNCTION_LINES = 320, 50

# What each room may import; the first name that a module begins with decides. "cni" is one file, "cni." all of podwire.
ROOMS = {
    "cni.protocol": ["cni.protocol"],
    "cni.config": ["cni", "cni.protocol", "cni.config"],
    "cni.plan": ["cni.protocol", "cni.config", "cni.plan"],
    "cni.proc": ["cni.protocol"],
    "cni.locks": ["cni.protocol"],
    "cni.kernel": ["cni.protocol", "cni.locks", "cni.kernel", "cni.plan.nftrule"],  # the rules that it encodes
    "cni.effects": ["cni.protocol", "cni.config", "cni.plan", "cni.proc", "cni.locks", "cni.kernel", "cni.effects"],
    "cni.plugins.ipam_exec": ["cni.protocol", "cni.proc"],
    "cni.plugins.ipam": ["cni", "cni.protocol", "cni.plugins.ipam_exec", "ipam"],
    "cni.plugins": [
        "cni",
        "cni.protocol",
        "cni.config",
        "cni.plan",
        "cni.effects",
        "cni.kernel",
        "cni.proc",
        "cni.plugins",
    ],
    "cni.diag": ["cni", "cni.", "ipam"],
    "cni.agent.model": ["cni.protocol", "cni.agent.model"],
    "cni.agent.policy": ["cni.protocol", "cni.plan.nftrule", "cni.plan.policy", "cni.agent.policy"],
    "cni.agent.stores.policy": ["cni.protocol", "cni.agent.policy", "cni.agent.logs", "cni.agent.stores"],
    "cni.agent.stores": [
        "cni.protocol",
        "cni.agent.model",
        "cni.agent.logs",
        "cni.agent.inotify",
        "cni.agent.stores",
    ],
    "cni.agent": [
        "cni",
        "cni.protocol",
        "cni.config",
        "cni.plan",
        "cni.effects",
        "cni.kernel",
        "cni.proc",
        "cni.agent",
    ],
    "cni.main": ["cni.", "ipam"],
    "cni.__main__": ["cni", "cni.main"],
    "ipam": ["ipam", "cni.protocol", "cni.locks"],
    "cni": [],
}
# Types may be named that are not imported: the judge of leases is handed down from above.
TYPES_ALONE = {
    "cni.plugins.ipam": ["ipam.lease"],
    "cni.plugins.ipam_exec": ["cni.plugins.ipam"],
    "cni.effects": ["ipam.lease"],
}
# Loaded at every call: built into the interpreter, or there before the first line of podwire runs.
CHEAP = {
    "__future__", "_blake2", "_json", "_operator", "_signal", "_socket", "_struct", "errno", "fcntl",
    "posix", "sys", "time",
}  # fmt: skip

PURE = ("cni/protocol", "cni/config", "cni/plan", "cni/agent/policy", "ipam")
# What people type has time, and the agent is loaded once.
TOOLS = (
    "cni/__main__.py",
    "cni/diag/",
    "cni/agent/",
    "cni/kernel/events.py",
    "cni/kernel/ethtool.py",
    "cni/kernel/nflog.py",
)
PLUGIN_FILES = [file for file in FILES if not file.startswith(TOOLS)]
# Lines of tuning's allowlist are regular expressions, as is --iface-regex.
PATTERNS = ("cni/config/tuning.py", "cni/agent/cli/options.py", "cni/agent/uplink/select.py")


def begins(module: str, room: str) -> bool:
    return module == room or module.startswith(f"{room}.")


def may_import(room: str, module: str) -> bool:
    return module == room if room == "cni" else begins(module, room.removesuffix("."))


def room_of(module: str) -> str:
    return next(room for room in ROOMS if begins(module, room))


def wrong_imports(file: str) -> list[str]:
    room = room_of(module_of(file))
    wrong = []
    for imported in imports(file):
        if not is_module(imported.module):
            continue
        allowed = [*ROOMS[room], *(TYPES_ALONE.get(room, []) if imported.typing else [])]
        if not any(may_import(name, imported.module) for name in allowed):
            wrong.append(f"line {imported.line}: {imported.module}")
    return wrong


def test_imports_lead_one_way() -> None:
    assert faults(wrong_imports, FILES) == {}


def test_the_allocator_is_loaded_by_who_needs_it() -> None:
    early = [
        f"{file}:{imported.line}"
        for file in FILES
        for imported in imports(file)
        if file.startswith("cni/")
        and not file.startswith("cni/diag/")
        and begins(imported.module, "ipam")
        and not (imported.lazy or imported.typing)
    ]
    assert early == []


def dear_imports(file: str) -> list[str]:
    return [
        f"line {imported.line}: {imported.module}"
        for imported in imports(file)
        if not (imported.lazy or imported.typing or imported.fallback or is_module(imported.module))
        and imported.module not in CHEAP
    ]


def test_what_every_call_loads_is_cheap() -> None:
    """Anything else belongs into the function that needs it, or under TYPE_CHECKING."""
    assert faults(dear_imports, PLUGIN_FILES) == {}


def run_at_import(node: ast.AST) -> Iterator[ast.AST]:
    """The parts of a module that are run when it is imported."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, (ast.FunctionDef, ast.Lambda)):
            yield child
            yield from run_at_import(child)


def questions_at_import(file: str) -> list[str]:
    run = [*run_at_import(tree(file))]
    called = [ast.unparse(node.func) for node in run if isinstance(node, ast.Call)]
    named = [ast.unparse(node) for node in run if isinstance(node, ast.Attribute)]
    asking = [name for name in called if name == "open" or name.startswith(("os.", "posix.", "time.", "fcntl."))]
    return asking + [name for name in named if name in ("os.environ", "sys.argv", "sys.path")]


def test_what_a_module_runs_asks_nothing_of_the_machine() -> None:
    """The bundle's modules are run at its build (hack/bundle/launcher.c): the answer would be the build machine's."""
    assert faults(questions_at_import, PLUGIN_FILES) == {}


def unguarded_imports(file: str) -> list[str]:
    guarded = {
        inner.lineno
        for node in nodes(file)
        if isinstance(node, ast.Try)
        and any(handler.type and ast.unparse(handler.type) == "ImportError" for handler in node.handlers)
        for inner in node.body
    }
    private = [
        imported
        for imported in imports(file)
        if imported.module in sys.stdlib_module_names and imported.module.startswith("_") and not imported.typing
    ]
    bare = [
        imported for imported in private if imported.module not in ("__future__", "_struct", "_operator", "_thread")
    ]
    return [imported.module for imported in bare if imported.line not in guarded]


def test_what_an_interpreter_may_lack_has_another_way_behind_it() -> None:
    """Private modules may go at any time; but _thread is documented, and _struct and _operator are all that their
    public modules consist of.
    """
    assert faults(unguarded_imports, FILES) == {}


def test_the_library_of_the_command_line_is_loaded_for_people_alone() -> None:
    named = {file for file in FILES for imported in imports(file) if begins(imported.module, "click")}
    assert named
    assert all(file.startswith("cni/diag/") for file in named)
    loading = {
        (file, imported.lazy)
        for file in FILES
        for imported in imports(file)
        if begins(imported.module, "cni.diag") and not file.startswith("cni/diag/")
    }
    assert loading == {("cni/main.py", True)}


def test_programs_are_run_in_one_file() -> None:
    named = {file for file in FILES for imported in imports(file) if imported.module == "subprocess"}
    assert named == {"cni/proc.py"}
    names = ("system", "popen", "exec", "spawn", "posix_spawn", "fork")
    running = [(file, name) for file in FILES for name, _ in calls(file) if name.partition("os.")[2].startswith(names)]
    assert running == []


def test_nft_is_executed_for_users_expressions_and_for_people_alone() -> None:
    named = {
        file
        for file in FILES
        for node in nodes(file)
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("find", "find_system"))
        if node.args and isinstance(node.args[0], ast.Constant) and node.args[0].value == "nft"
    }
    looking = {"cni/plugins/context.py"}  # it only looks for it
    assert named == {"cni/effects/nft_load.py", "cni/diag/path/ruletext.py", "cni/diag/report/kernel.py"} | looking


def test_the_answer_is_printed_in_one_file() -> None:
    printing = {file for file in FILES for name, _ in calls(file) if name == "print"}
    streams = {
        file
        for file in FILES
        for node in nodes(file)
        if isinstance(node, ast.Attribute) and ast.unparse(node) in ("sys.stdout", "sys.stderr", "sys.__stdout__")
    }
    descriptors = {
        file
        for file in FILES
        for node in nodes(file)
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in ("Descriptor", "os.write", "os.fdopen")
        and node.args
        and isinstance(node.args[0], ast.Constant)
    }
    assert printing | streams == set()
    assert descriptors == {"cni/main.py", "cni/diag/output.py"}  # the latter for a command without an end


def called(*names: str) -> Callable[[str], list[str]]:
    return lambda file: [name for name, _ in calls(file) if name in names]


def test_nothing_ends_the_process_below_the_entry() -> None:
    assert faults(called("exit", "quit", "sys.exit", "os._exit", "os.abort"), FILES) == {}


def early_patterns(file: str) -> list[int]:
    return [
        imported.line
        for imported in imports(file)
        if imported.module == "re" and not imported.typing and not (imported.lazy and file in PATTERNS)
    ]


def test_patterns_match_the_whole_text() -> None:
    """`re.match` with `$` lets a newline through; there is no need of patterns but where a user writes them."""
    assert faults(called("re.match", "re.search"), FILES) == {}
    assert faults(early_patterns, FILES) == {}


def long_parts(file: str) -> list[str]:
    """Returns the names of functions that are too long, and that of the file."""
    long = [f.name for f in functions(file) if (f.end_lineno or 0) - f.lineno + 1 >= FUNCTION_LINES]
    lines = max([node.end_lineno or 0 for node in tree(file).body], default=0)
    return [*long, file] if lines >= FILE_LINES else long


def test_a_file_is_read_in_one_go() -> None:
    assert faults(long_parts, FILES) == {}


def test_a_module_states_its_rule() -> None:
    assert [file for file in FILES if not ast.get_docstring(tree(file))] == []


def raised(function: ast.FunctionDef) -> set[str]:
    """The errors that a function itself raises for its caller, by name."""
    caught: set[str] = set()
    names: set[str] = set()
    for node in ast.walk(function):
        if isinstance(node, ast.ExceptHandler) and node.type:
            caught.update(name.id for name in ast.walk(node.type) if isinstance(name, ast.Name))
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and isinstance(node.exc.func, ast.Name):
            names.add(node.exc.func.id)  # a name in lower case is a function that chooses the error
    return {name for name in names - caught if name[0].isupper()} - {"AssertionError"}


def silent_errors(file: str) -> list[str]:
    return [
        f"{statement.name}: {', '.join(sorted(raised(statement)))}"
        for statement in tree(file).body
        if isinstance(statement, ast.FunctionDef) and not statement.name.startswith("_")
        if not all(name in (ast.get_docstring(statement) or "") for name in raised(statement))
    ]


def test_a_public_function_names_the_error_that_it_raises() -> None:
    assert faults(silent_errors, [file for file in FILES if file.startswith(PURE)]) == {}
