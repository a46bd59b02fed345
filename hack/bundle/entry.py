"""The executable `podwire`, and every link to it."""

import start  # type: ignore[import-not-found]  # the bundle has it as a module; the other imports need it

from cni.main import main

start.leave(main())
