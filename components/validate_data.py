"""Step: join the datasets and validate what comes out."""

from kfp import dsl

from components import _image


@dsl.component(base_image=_image.DATA, install_kfp_package=False)
def validate_data(
    data: list,
    recipe: str,
    overrides: list,
    tracking_uri: str,
    dataset: dsl.Output[dsl.Dataset],
    validation: dsl.Output[dsl.Artifact],
    page: dsl.Output[dsl.HTML],
    metrics: dsl.Output[dsl.Metrics],
) -> None:
    """See ``relevance.data.contract.validate_data``."""
    from pathlib import Path

    from components._step import open_step
    from relevance.data.contract import validate_data
    from relevance.data.uris import gather
    from relevance.recipes import recipe_config

    config = recipe_config(recipe, overrides)
    with open_step("validate-data", {"contract": config.contract}, metrics, tracking_uri) as step:
        gather(data, Path(dataset.path))
        try:
            step.log(validate_data(config.contract, Path(dataset.path), Path(validation.path)))
        finally:  # a blocked run has a report too, and its reader needs it most
            step.report(Path(validation.path), page)
