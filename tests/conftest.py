"""Settings for every test process, made before anything heavy is imported, and shared data."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

# torch with more threads than free cores is ten times slower, and pytest-xdist takes the cores
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
# no test may ask a model hub or report home
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["BENTOML_DO_NOT_TRACK"] = "True"
os.environ["DO_NOT_TRACK"] = "1"
os.environ["GX_ANALYTICS_ENABLED"] = "false"
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["MPLBACKEND"] = "Agg"

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Callable[[str], Path]:
    """Directory of a real dataset that lies beside the project in development and in CI."""

    def find(name: str) -> Path:
        directory = ROOT.parent / "shared" / "data" / name
        if not directory.is_dir():
            pytest.skip(f"real data not here: {name} is not in ../shared/data")
        return directory

    return find


# tests.tiny imports torch, which the tests that need none of these should not wait for
@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("tiny") / "catalogue"
    from tests.tiny import write_tiny_dataset

    write_tiny_dataset(data, with_events=False)
    return data


@pytest.fixture(scope="session")
def clicked_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("tiny") / "clicked"
    from tests.tiny import write_tiny_dataset

    write_tiny_dataset(data, with_events=True)
    return data


@pytest.fixture(scope="session")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("tiny") / "vocabulary"
    from tests.tiny import write_tiny_vocabulary

    write_tiny_vocabulary(made)
    return made


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory, vocabulary: Path) -> Path:
    made = tmp_path_factory.mktemp("tiny") / "encoder"
    from tests.tiny import write_tiny_encoder

    write_tiny_encoder(vocabulary, made)
    return made
