"""``python -m triage_server``: the same program as ``triage-server``."""

import sys

from triage_server.cli import main

sys.exit(main())
