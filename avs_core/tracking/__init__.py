"""MLflow behind a few functions, and a run that goes nowhere.

run           what a job calls: `start_run`, `finishing`, `Tracker`, `NullRun`
registry      bundles as registered models: `resolve_model`, `register_bundle`
redaction     what must not leave the process is taken out of everything that is logged
outbox        the queue between the job and a server that may be away
manners       how MLflow behaves in our process
mlflow_…      the calls of MLflow

MLflow is imported when a run starts, not before: that takes seconds.
"""

from avs_core.tracking.redaction import redact
from avs_core.tracking.registry import PythonFunction, ResolvedModel, fetch_model, register_bundle, resolve_model
from avs_core.tracking.run import NullRun, Status, Tracker, finishing, start_run

__all__ = [
    "NullRun",
    "PythonFunction",
    "ResolvedModel",
    "Status",
    "Tracker",
    "fetch_model",
    "finishing",
    "redact",
    "register_bundle",
    "resolve_model",
    "start_run",
]
