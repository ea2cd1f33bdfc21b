"""``python -m fxsynops`` is ``fxsynops``."""

import sys

from fxsynops.cli import main

sys.exit(main())
