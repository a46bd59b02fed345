"""Brings the interpreter to where the launcher records it: it has run the modules of all plugins, and has read nothing
of a call.

Modules of the standard library that are not built in are left to the calls that need them. An answer of the machine to
a module that is run here would be the build machine's: tests/rules/test_source.py has that none asks.
"""

import gc
import sys

import start  # type: ignore[import-not-found]  # the bundle has it; it makes the imports after it possible

LEFT_OUT = ("cni.agent", "cni.diag", "cni.kernel.events")  # podwired's, and what people type

for name in start.Code.hot:
    if not name.startswith(LEFT_OUT):
        __import__(name)
from cni.main import main  # noqa: E402  # only now: it was not there before

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
