"""Search and ablation of class-wise robust fairness, with error bars.

The switches below must stand before anything imports mlflow or ray, which read them while they are imported; a value
that the caller's environment already holds is kept.
"""

import os

__version__ = "0.1.0"

SWITCHES = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "RAY_USAGE_STATS_ENABLED": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the ledger and the mirror log; Tune's would repeat it
    "RAY_AIR_NEW_OUTPUT": "0",  # the new one prints a table even when told to be silent
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # seven processes more, and an open door
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",  # the mirror repeats: it looks first what arrived, which MLflow does not
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",  # seconds
}
for _name, _value in SWITCHES.items():
    os.environ.setdefault(_name, _value)
