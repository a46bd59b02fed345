"""`python -m cni` is the executable podwire."""

import sys

from cni import PODWIRE
from cni.main import main

sys.argv[0] = PODWIRE
raise SystemExit(main())
