"""Step: join the datasets and validate what comes out."""

from kfp import dsl

from components import _image


@dsl.component(base_image=_image.DATA, install_kfp_package=False)
def validate_data(
    data: list,
    recipe: str,
    overrides: list,
    tracking_uri: str,
    job: str,
    dataset: dsl.Output[dsl.Dataset],
    reports: dsl.Output[dsl.Artifact],
    page: dsl.Output[dsl.HTML],
    metrics: dsl.Output[dsl.Metrics],
) -> None:
    """See ``relevance.data.contract.validate_data``."""
    import shutil
    from pathlib import Path

    from relevance.data.contract import validate_data
    from relevance.data.tables import merge
    from relevance.data.uris import local_copies
    from relevance.recipes import recipe_config
    from relevance.registry import log_step

    config = recipe_config(recipe, overrides)
    with local_copies(data) as sources:
        merge(sources, Path(dataset.path))
    report = Path(reports.path)
    try:
        numbers = validate_data(config.contract, Path(dataset.path), report)
    finally:
        if report.exists():  # a blocked run has a report too, and its reader needs it most
            shutil.copyfile(report / "index.html", page.path)
    for name, value in numbers.items():
        metrics.log_metric(name, value)
    log_step(
        tracking_uri,
        job=job,
        step="validate-data",
        settings=config.contract,
        metrics=numbers,
        reports=report,
    )
