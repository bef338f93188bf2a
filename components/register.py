"""Step: the student, registered as challenger if it beats the champion."""

from kfp import dsl

from components import _image


@dsl.component(base_image=_image.TRAIN, install_kfp_package=False)
def register(
    dataset: dsl.Input[dsl.Dataset],
    checkpoint: dsl.Input[dsl.Model],
    evaluation: dsl.Input[dsl.Artifact],
    recipe: str,
    overrides: list,
    tracking_uri: str,
    image: str,
    metrics: dsl.Output[dsl.Metrics],
) -> None:
    """See ``relevance.registry.register``, which opens the step's MLflow run itself."""
    from pathlib import Path

    from components._step import show
    from relevance.recipes import recipe_config
    from relevance.registry import register

    config = recipe_config(recipe, overrides)
    numbers = register(
        config.register,
        Path(checkpoint.path),
        Path(dataset.path),
        Path(evaluation.path),
        tracking_uri=tracking_uri,
        model="student",
        tags={
            "recipe": recipe,
            "overrides": " ".join(overrides),
            "seed": str(config.seed),
            "image": image,
        },
    )
    show(metrics, numbers)
