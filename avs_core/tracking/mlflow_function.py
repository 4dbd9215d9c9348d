"""A bundle as a model of MLflow's python_function flavour: the bundle's files, and MLflow's that say how to load them.

<model>/MLmodel             names the loading module, the signature and the settings
        data/<folder>/      the bundle
        input_example.json  and what MLflow adds to describe the environment
"""

from pathlib import Path

import pyarrow as pa
from mlflow.models import Model, ModelSignature
from mlflow.pyfunc import FLAVOR_NAME, save_model
from mlflow.types import ColSpec, DataType, Schema

from avs_core.errors import BundleError
from avs_core.tracking.registry import PythonFunction

DESCRIPTION = "MLmodel"
"""MLflow's name of the file that makes a folder a model."""

_KINDS = {
    pa.string(): DataType.string,
    pa.binary(): DataType.binary,
    pa.bool_(): DataType.boolean,
    pa.int16(): DataType.integer,  # MLflow knows nothing narrower
    pa.int32(): DataType.integer,
    pa.int64(): DataType.long,
    pa.float32(): DataType.float,
}


def write_model(model: Path, bundle: Path, function: PythonFunction, run_id: str) -> None:
    """Write the model into a folder that is not there yet. `run_id` is told as the run that logged it."""
    save_model(
        path=str(model),
        loader_module=function.loader,  # with it nothing is pickled, and nothing is run before the model is loaded
        data_path=str(bundle),
        mlflow_model=Model(artifact_path=model.name, run_id=run_id),
        signature=ModelSignature(_schema(function.inputs), _schema(function.outputs)),
        input_example=pa.Table.from_pylist([*function.example], function.inputs).to_pandas(),
        model_config=dict(function.settings),
        pip_requirements=[*function.requirements],
    )


def bundle_within(folder: Path) -> Path:
    """The bundle in what a version holds: in a model of ours its data; a folder without MLmodel is a bundle itself.

    Raises `BundleError` for another kind of model.
    """
    if not (folder / DESCRIPTION).is_file():
        return folder
    data = Model.load(str(folder)).flavors.get(FLAVOR_NAME, {}).get("data")
    found = (folder / str(data)).resolve()
    if data is None or not found.is_relative_to(folder.resolve()) or not found.is_dir():
        raise BundleError(
            f"a registered model must hold a bundle in a folder of its own, its {DESCRIPTION} names {data}: "
            "register it with avs train … --register"
        )
    return found


def _schema(columns: pa.Schema) -> Schema:
    return Schema([ColSpec(_KINDS[column.type], column.name, required=not column.nullable) for column in columns])
