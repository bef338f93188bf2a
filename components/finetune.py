"""Step: one of the recipe's models, fine-tuned on weak pairs and judgments."""

from kfp import dsl

from components import _image


@dsl.component(base_image=_image.TRAIN, install_kfp_package=False)
def finetune(
    dataset: dsl.Input[dsl.Dataset],
    encoder: dsl.Input[dsl.Model],
    model: str,
    recipe: str,
    overrides: list,
    tracking_uri: str,
    state: str,
    checkpoint: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
    guide: dsl.Input[dsl.Model] = None,
    terms: dsl.Input[dsl.Model] = None,
) -> None:
    """See ``relevance.training.finetune.finetune``; ``model`` is ``teacher`` or ``dual``."""
    from pathlib import Path

    from components._step import open_step, resumable
    from relevance.recipes import recipe_config
    from relevance.training.finetune import finetune

    config = recipe_config(recipe, overrides)
    chosen = getattr(config, model)
    settings = {model: chosen, "seed": config.seed}
    with (
        open_step(f"finetune-{model}", settings, metrics, tracking_uri) as step,
        resumable(state, f"finetune-{model}") as states,
    ):
        step.log(
            finetune(
                chosen,
                Path(dataset.path),
                Path(encoder.path),
                Path(checkpoint.path),
                seed=config.seed,
                guide=Path(guide.path) if guide else None,
                terms=Path(terms.path) if terms else None,
                state=states,
            )
        )
