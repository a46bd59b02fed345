"""The first script of an interpreter that was started: of podwired, and of a plugin for which the launcher restores no
memory. Of restored ones memory.py serves the call.
"""

import posix

import start  # type: ignore[import-not-found]  # the bundle has it; it makes the imports after it possible

try:
    if posix.environ.get(b"CNI_COMMAND", b"") not in (b"", b"VERSION"):
        start.preload()
    from cni.main import main  # only now: it was not there before
except (MemoryError, OSError) as error:
    start.give_up(error)

start.leave(main())
