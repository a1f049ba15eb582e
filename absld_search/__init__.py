"""Search and ablation of class-wise robust fairness, with error bars.

The switches below must stand before anything imports mlflow or ray, which read them while they are imported; a value
that the caller's environment already holds is kept.
"""

import os

__version__ = "0.1.0"

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "true")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault(
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1"
)  # the ledger and the mirror log; Tune's would repeat it
os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")  # seven processes more, and an open door
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # the new one prints a table even when told to be silent
