"""`python -m trainyard_trainer`."""

from __future__ import annotations

import sys

from trainyard_trainer.main import main

sys.exit(main())
