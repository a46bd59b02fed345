"""Brings the interpreter to where the launcher records it: it has run the modules of all plugins, and has read nothing
of a call.

What is not built in is left to the calls that need it: modules of the standard library, C modules in files, and those
of podwire that import them at once, which are podwired's. An answer of the machine to a module that is run here would
be the build machine's: tests/rules/test_source.py has that none asks.
"""

import gc
import sys

import start  # type: ignore[import-not-found]  # the bundle has it; it makes the imports after it possible

LEFT_OUT = ("cni.agent", "cni.diag")  # podwired's, and what people type
# What an attachment runs lies together: of each page in which a count of references changes, a call gets its own copy.
TOGETHER = ("cni.main", "cni.config.keys", "cni.plugins.bridge", "ipam.main", "cni.effects.forward_accept")

extensions, start.Code.extensions, start.Code.rest = start.Code.extensions, {}, {}
for name in (*TOGETHER, *start.Code.hot):
    if not name.startswith(LEFT_OUT):
        try:
            __import__(name)
        except ImportError:
            continue
from cni.main import main  # noqa: E402  # only now: it was not there before

start.Code.extensions, start.Code.rest = extensions, None
start.Code.close()
# Nothing is found beside the working directory of a call, which is where the record was made.
sys.path.clear()
sys.path_importer_cache.clear()
gc.collect()
gc.freeze()


def resume(code: int, home: str) -> None:
    """Serves the call of a restored process, and ends it. `code`: a descriptor of podwire.code."""
    start.HOME = vars(sys)["_MEIPASS"] = home
    start.Code.fd = code
    try:
        start.restore_environment()
        status = main()
    except MemoryError as error:  # too little for an error object of podwire's own
        start.give_up(error)
    start.leave(status)
