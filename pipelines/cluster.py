"""The training graph on a Kubeflow cluster: its IR, and how to start it."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

import yaml
from kfp import Client, compiler
from kfp_server_api import ApiException  # type: ignore[import-untyped]
from urllib3.exceptions import HTTPError

from components import _image
from pipelines.train import train_pipeline
from relevance.files import new_file
from relevance.recipes import pipeline_config

_DIGEST = re.compile(r"[\w.\-:/]+@sha256:[0-9a-f]{64}")
_NAMES = {"data": _image.DATA, "train": _image.TRAIN}


def compile_pipeline(out: Path, image: str, gpus: int = 0) -> None:
    """Write the graph's IR with images by digest, since a cluster caches by the image's name.

    Args:
        out: YAML file to write.
        image: One ``NAME@sha256:DIGEST`` for all steps, or ``data=NAME@…,train=NAME@…``.
        gpus: GPUs that each training step asks for.

    Raises:
        ValueError: An image without digest, or an unknown image name.
    """
    images = _images(image)
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder) / "train.yaml"
        compiler.Compiler().compile(train_pipeline(gpus=gpus), str(draft))
        documents = list(yaml.safe_load_all(draft.read_text()))
    text = yaml.safe_dump_all(documents, sort_keys=True)
    for name, wanted in images.items():
        # everywhere: an executor's image, and the image that ``register`` is told it runs in
        text = text.replace(_NAMES[name], wanted)
    with new_file(out) as partial:
        partial.write_text(text)


def submit(
    host: str,
    image: str,
    data: str | Sequence[str],
    recipe: str,
    overrides: Sequence[str] = (),
    *,
    gpus: int = 0,
    tracking_uri: str = "",
) -> str:
    """Start the graph on a cluster.

    Args:
        host: Address of the Kubeflow Pipelines API.
        image: See ``compile_pipeline``.
        data: URIs of datasets. A cluster caches by them: name each version of the data anew.
        recipe: Name of a recipe.
        overrides: Its ``key=value`` changes.
        gpus: GPUs that each training step asks for.
        tracking_uri: MLflow server; empty takes what the cluster gives its steps.

    Returns:
        Id of the run.

    Raises:
        ValueError: An image without digest, an unknown recipe or key.
        OSError: The API cannot be reached, or refuses.
    """
    pipeline_config(recipe, overrides)
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / "train.yaml"
        compile_pipeline(package, image, gpus)
        try:
            run = Client(host=host).create_run_from_pipeline_package(
                str(package),
                arguments={
                    "data": [data] if isinstance(data, str) else list(data),
                    "recipe": recipe,
                    "overrides": list(overrides),
                    "tracking_uri": tracking_uri,
                },
            )
        except (ApiException, HTTPError) as error:
            raise OSError(f"{host}: {' '.join(str(error).split())}") from error
    return str(run.run_id)


def _images(image: str) -> dict[str, str]:
    named = dict(part.partition("=")[::2] for part in image.split(",") if "=" in part)
    images = named or dict.fromkeys(_NAMES, image)
    if set(images) != set(_NAMES):
        raise ValueError(f"--image {image}: names {', '.join(images)}, want {', '.join(_NAMES)}")
    for value in images.values():
        if not _DIGEST.fullmatch(value):
            raise ValueError(f"--image {value}: has no digest, want NAME@sha256:<64 hex digits>")
    return images
