"""Step: the teacher's judgment in a small student."""

from kfp import dsl

from components import _image


@dsl.component(base_image=_image.TRAIN, install_kfp_package=False)
def distill(
    dataset: dsl.Input[dsl.Dataset],
    teacher: dsl.Input[dsl.Model],
    vocabulary: dsl.Input[dsl.Artifact],
    terms: dsl.Input[dsl.Model],
    recipe: str,
    overrides: list,
    tracking_uri: str,
    state: str,
    student: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
) -> None:
    """See ``relevance.training.distill.distill``."""
    from pathlib import Path

    from components._step import open_step, resumable
    from relevance.recipes import recipe_config
    from relevance.training.distill import distill

    config = recipe_config(recipe, overrides)
    settings = {"distill": config.distill, "seed": config.seed}
    with (
        open_step("distill", settings, metrics, tracking_uri) as step,
        resumable(state, "distill") as states,
    ):
        step.log(
            distill(
                config.distill,
                Path(dataset.path),
                Path(teacher.path),
                Path(student.path),
                seed=config.seed,
                vocabulary=Path(vocabulary.path),
                terms=Path(terms.path),
                state=states,
            )
        )
