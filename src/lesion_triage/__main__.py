"""``python -m lesion_triage``: the command line."""

import sys

from lesion_triage.cli import main

sys.exit(main())
