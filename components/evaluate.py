"""Step: every checkpoint and both lexical baselines, judged on the same pairs."""

from kfp import dsl

from components import _image


@dsl.component(base_image=_image.TRAIN, install_kfp_package=False)
def evaluate(
    dataset: dsl.Input[dsl.Dataset],
    dual: dsl.Input[dsl.Model],
    teacher: dsl.Input[dsl.Model],
    student: dsl.Input[dsl.Model],
    recipe: str,
    overrides: list,
    tracking_uri: str,
    job: str,
    evaluation: dsl.Output[dsl.Artifact],
    page: dsl.Output[dsl.HTML],
    metrics: dsl.Output[dsl.Metrics],
) -> None:
    """See ``relevance.evaluation.evaluate``."""
    import shutil
    from pathlib import Path

    from relevance.evaluation import evaluate
    from relevance.recipes import recipe_config
    from relevance.registry import log_step

    config = recipe_config(recipe, overrides).evaluation
    checkpoints = {"dual": dual, "teacher": teacher, "student": student}
    numbers = evaluate(
        config,
        Path(dataset.path),
        {name: Path(checkpoint.path) for name, checkpoint in checkpoints.items()},
        Path(evaluation.path),
    )
    shutil.copyfile(Path(evaluation.path) / "index.html", page.path)
    for name, value in numbers.items():
        metrics.log_metric(name, value)
    log_step(
        tracking_uri,
        job=job,
        step="evaluate",
        settings=config,
        metrics=numbers,
        reports=Path(evaluation.path),
    )
