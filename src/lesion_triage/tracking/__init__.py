"""MLflow: the one package that imports it. Imports config, the bundle and the exception tree.

``tracker`` records runs, ``registry`` keeps versions of bundles and their aliases, and ``served`` is the code
that MLflow copies into a version and executes where it is served.
"""

from lesion_triage.tracking.tracker import RUN_ID_FILE, Tracker, environment, flat_params

__all__ = ["RUN_ID_FILE", "Tracker", "environment", "flat_params"]
