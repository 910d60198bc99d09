"""Engines for bulk data, two nodes each on this machine: what they answer is what one process answers.

They come with `make clusters`; without them these tests are skipped. CLUSTERS_WINDOWS says how many windows.
"""

import importlib
import importlib.util
import os
import shutil
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from serving import ROOT

from lstm_serve import load_model
from lstm_serve.bulk import Predictor, make_predict_fn

MODEL = str(ROOT / "models/turbofan.h5")
WINDOWS = int(os.environ.get("CLUSTERS_WINDOWS", "1000000"))
FILES = 20
# Of the windows' answers: BLAS takes other kernels for batches of other sizes.
TOLERANCE = 1e-6
# A node of Ray ends where its agent has not started within 15 seconds, and these start beside it: 3 s of CPU time each.
WITHOUT = {"include_dashboard": False, "include_log_monitor": False, "no_monitor": True}
# The actors and executors import this module by its name.
PYTHONPATH = os.pathsep.join([str(Path(__file__).parent), str(ROOT / "tests/helpers")])


@pytest.fixture(autouse=True)
def _their_warnings() -> Iterator[None]:
    """Let the engines warn of what they like: it is not our code."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def installed(package: str) -> Any:
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed: make clusters")
    return importlib.import_module(package)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Windows in Parquet: their number, and x, flattened."""
    arrow, parquet = installed("pyarrow"), importlib.import_module("pyarrow.parquet")
    folder = tmp_path_factory.mktemp("windows")
    for k, ids in enumerate(np.array_split(np.arange(WINDOWS), FILES)):
        x = np.random.default_rng(k).normal(0, 1, len(ids) * 300).astype(np.float32)
        listed = arrow.FixedSizeListArray.from_arrays(arrow.array(x), 300).cast(arrow.list_(arrow.float32()))
        # Several groups of rows, so that no task is the whole file.
        parquet.write_table(arrow.table({"id": ids, "x": listed}), folder / f"{k:02}.parquet", row_group_size=10_000)
    return folder


@pytest.fixture(scope="module")
def expected() -> npt.NDArray[np.float32]:
    """What one process answers, one thread at work."""
    model, answers, began = load_model(MODEL), [], time.perf_counter()
    for k, ids in enumerate(np.array_split(np.arange(WINDOWS), FILES)):
        x = np.random.default_rng(k).normal(0, 1, len(ids) * 300).astype(np.float32)
        answers.append(model.predict(x.reshape(-1, 20, 15)))
    told("one process", began)
    return np.concatenate(answers)


def told(what: str, began: float) -> None:
    taken = time.perf_counter() - began
    print(f"\n{what}: {WINDOWS:,} windows in {taken:.1f} s, {WINDOWS / taken:,.0f} a second")  # noqa: T201


def once(marker: str) -> bool:
    """Whether this is the first process that asks."""
    try:
        Path(marker).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


class Dying(Predictor):
    """One of the actors is killed at its third batch, with what it had in work."""

    def __init__(self, path: str, marker: str) -> None:
        super().__init__(path)
        self.marker, self.batches = marker, 0

    def __call__(self, batch: Any) -> Any:
        self.batches += 1
        if self.batches == 3 and once(self.marker):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(batch)


def dying(make: Callable[[], Callable[[Any], Any]], marker: str) -> Callable[[], Callable[[Any], Any]]:
    """As `make`, but one of the executors is killed at its third batch."""

    def make_fn() -> Callable[[Any], Any]:
        predict, batches = make(), 0

        def fn(x: Any) -> Any:
            nonlocal batches
            batches += 1
            if batches == 3 and once(marker):
                # The executor has started a daemon, and that one this process.
                stat = Path(f"/proc/{os.getppid()}/stat").read_text().rpartition(")")[2]
                os.kill(int(stat.split()[1]), signal.SIGKILL)
            return predict(x)

        return fn

    return make_fn


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    ray = installed("ray")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["PYTHONPATH"] = PYTHONPATH
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cluster = importlib.import_module("ray.cluster_utils").Cluster()
        for _ in range(2):
            cluster.add_node(num_cpus=2, object_store_memory=400 << 20, **WITHOUT)
        ray.init(address=cluster.address, log_to_driver=False)
        yield ray
        ray.shutdown()
        cluster.shutdown()


@pytest.mark.parametrize("killed", [False, True], ids=["", "an actor killed"])
def test_ray(*, ray: Any, folder: Path, expected: npt.NDArray[np.float32], killed: bool, tmp_path: Path) -> None:
    marker = tmp_path / "killed"
    assert len(ray.nodes()) == 2
    importlib.import_module("ray.data")
    began = time.perf_counter()
    answered = ray.data.read_parquet(str(folder)).map_batches(
        Dying if killed else Predictor,
        fn_constructor_args=(MODEL, str(marker)) if killed else (MODEL,),
        compute=ray.data.ActorPoolStrategy(size=2),
        batch_size=4096,
    )
    y, seen = np.zeros_like(expected), np.zeros(WINDOWS, np.int64)
    for batch in answered.iter_batches(batch_format="numpy", batch_size=65536):
        y[batch["id"]] = batch["y"]
        np.add.at(seen, batch["id"], 1)
        assert (batch["predicted_class"] == batch["y"].argmax(axis=1)).all()
    told(f"ray{', an actor killed' * killed}", began)
    assert marker.exists() == killed
    assert (seen == 1).all()
    np.testing.assert_allclose(y, expected, rtol=0, atol=TOLERANCE)


@pytest.fixture(scope="module")
def spark() -> Iterator[Any]:
    sql = installed("pyspark") and importlib.import_module("pyspark.sql")
    if shutil.which("java") is None:
        pytest.skip("Spark needs Java (Debian: default-jre-headless)")
    os.environ["PYSPARK_PYTHON"] = sys.executable  # the executors would take any Python
    session = (
        sql.SparkSession.builder.master("local-cluster[2,1,1024]")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.executorEnv.PYTHONPATH", PYTHONPATH)
        .config("spark.ui.enabled", "false")
        .config("spark.sql.execution.arrow.maxRecordsPerBatch", "4096")
        .config("spark.sql.files.maxPartitionBytes", str(16 << 20))
        .getOrCreate()
    )
    yield session
    session.stop()


@pytest.mark.parametrize("killed", [False, True], ids=["", "an executor killed"])
def test_spark(*, spark: Any, folder: Path, expected: npt.NDArray[np.float32], killed: bool, tmp_path: Path) -> None:
    functions, types = (importlib.import_module(f"pyspark.{name}") for name in ("ml.functions", "sql.types"))
    parquet = importlib.import_module("pyarrow.parquet")
    marker = tmp_path / "killed"
    make = make_predict_fn(MODEL)
    answer = functions.predict_batch_udf(
        dying(make, str(marker)) if killed else make,
        return_type=types.ArrayType(types.FloatType()),
        batch_size=4096,
        input_tensor_shapes=[[20, 15]],
    )
    began = time.perf_counter()
    frame = spark.read.parquet(str(folder))
    frame.select("id", answer("x").alias("y")).write.parquet(str(tmp_path / "answers"))
    told(f"spark{', an executor killed' * killed}", began)
    table = parquet.read_table(tmp_path / "answers")
    ids = table["id"].to_numpy()
    assert marker.exists() == killed
    assert (np.sort(ids) == np.arange(WINDOWS)).all()
    y = table["y"].combine_chunks().flatten().to_numpy().reshape(-1, 5)
    np.testing.assert_allclose(y, expected[ids], rtol=0, atol=TOLERANCE)
