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
    job: str,
    image: str,
    metrics: dsl.Output[dsl.Metrics],
) -> None:
    """See ``relevance.registry.register``."""
    from pathlib import Path

    from relevance.recipes import recipe_config
    from relevance.registry import log_step, register

    config = recipe_config(recipe, overrides)
    numbers = register(
        config.register,
        Path(checkpoint.path),
        Path(dataset.path),
        Path(evaluation.path),
        tracking_uri=tracking_uri,
        model="student",
        job=job,
        tags={
            "recipe": recipe,
            "overrides": " ".join(overrides),
            "seed": str(config.seed),
            "image": image,
        },
    )
    for name, value in numbers.items():
        metrics.log_metric(name, value)
    log_step(tracking_uri, job=job, step="register", settings=config.register, metrics=numbers)
