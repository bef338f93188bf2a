"""Step: the classes of terms, learnt from the catalogue."""

from kfp import dsl

from components import _image


@dsl.component(base_image=_image.TRAIN, install_kfp_package=False)
def learn_terms(
    dataset: dsl.Input[dsl.Dataset],
    recipe: str,
    overrides: list,
    tracking_uri: str,
    terms: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
) -> None:
    """See ``relevance.data.tagger.learn_terms``."""
    from pathlib import Path

    from components._step import open_step
    from relevance.data.tagger import learn_terms
    from relevance.recipes import recipe_config

    config = recipe_config(recipe, overrides)
    settings = {"terms": config.terms, "seed": config.seed}
    with open_step("learn-terms", settings, metrics, tracking_uri) as step:
        step.log(learn_terms(config.terms, Path(dataset.path), Path(terms.path), seed=config.seed))
