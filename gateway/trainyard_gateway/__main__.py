"""`python -m trainyard_gateway`."""

import sys

from trainyard_gateway.main import main

sys.exit(main())
