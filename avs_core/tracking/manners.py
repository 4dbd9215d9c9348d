"""How MLflow behaves in our process: quick to give up, quiet, and telling nobody."""

import logging
import os
import warnings

SETTINGS = {
    # MLflow's own defaults try for minutes; our outbox repeats what failed, and knows when the job waits for it
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # a model would take the uv.lock of the folder that we happen to stand in, with the hosts it names
    "MLFLOW_UV_AUTO_DETECT": "false",
}
"""Where the user has set one of them, the user's counts."""


def teach_mlflow() -> None:
    """Call it before MLflow is imported, which reads some of the settings then."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    logging.getLogger("alembic").setLevel(logging.ERROR)
    # what its dependencies deprecate is not for our users to mend
    warnings.filterwarnings("ignore", module=r"(mlflow|alembic|sqlalchemy|google)\b")
