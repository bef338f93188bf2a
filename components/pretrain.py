"""Step: the encoder, trained on the shop's own texts."""

from kfp import dsl

from components import _image


@dsl.component(base_image=_image.TRAIN, install_kfp_package=False)
def pretrain(
    dataset: dsl.Input[dsl.Dataset],
    vocabulary: dsl.Input[dsl.Artifact],
    recipe: str,
    overrides: list,
    tracking_uri: str,
    job: str,
    state: str,
    encoder: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
) -> None:
    """See ``relevance.training.pretrain.pretrain``."""
    from pathlib import Path

    from relevance.recipes import recipe_config
    from relevance.registry import log_step
    from relevance.training.pretrain import pretrain

    config = recipe_config(recipe, overrides)
    numbers = pretrain(
        config.pretrain,
        Path(dataset.path),
        Path(vocabulary.path),
        Path(encoder.path),
        seed=config.seed,
        state=Path(state) / "pretrain" if state else None,
    )
    for name, value in numbers.items():
        metrics.log_metric(name, value)
    log_step(tracking_uri, job=job, step="pretrain", settings=config.pretrain, metrics=numbers)
