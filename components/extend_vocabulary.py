"""Step: the tokenizer, extended by the shop's words."""

from kfp import dsl

from components import _image


@dsl.component(base_image=_image.DATA, install_kfp_package=False)
def extend_vocabulary(
    dataset: dsl.Input[dsl.Dataset],
    recipe: str,
    overrides: list,
    tracking_uri: str,
    job: str,
    vocabulary: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
) -> None:
    """See ``relevance.data.vocabulary.extend_vocabulary``."""
    from pathlib import Path

    from relevance.data.vocabulary import extend_vocabulary
    from relevance.recipes import recipe_config
    from relevance.registry import log_step

    config = recipe_config(recipe, overrides).vocabulary
    numbers = extend_vocabulary(config, Path(dataset.path), Path(vocabulary.path))
    for name, value in numbers.items():
        metrics.log_metric(name, value)
    log_step(tracking_uri, job=job, step="extend-vocabulary", settings=config, metrics=numbers)
