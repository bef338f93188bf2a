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
    evaluation: dsl.Output[dsl.Artifact],
    page: dsl.Output[dsl.HTML],
    metrics: dsl.Output[dsl.Metrics],
) -> None:
    """See ``relevance.evaluation.evaluate``."""
    from pathlib import Path

    from components._step import open_step
    from relevance.evaluation import evaluate
    from relevance.recipes import recipe_config

    config = recipe_config(recipe, overrides).evaluation
    checkpoints = {
        "dual": Path(dual.path),
        "teacher": Path(teacher.path),
        "student": Path(student.path),
    }
    with open_step("evaluate", {"evaluation": config}, metrics, tracking_uri) as step:
        out = Path(evaluation.path)
        step.log(evaluate(config, Path(dataset.path), checkpoints, out))
        step.report(out, page)
