"""`python -m trainyard_operator`."""

from __future__ import annotations

import sys

from trainyard_operator.main import main

sys.exit(main())
