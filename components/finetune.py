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
    job: str,
    state: str,
    checkpoint: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
    guide: dsl.Input[dsl.Model] = None,
) -> None:
    """See ``relevance.training.finetune.finetune``; ``model`` is ``teacher`` or ``dual``."""
    from pathlib import Path

    from relevance.recipes import recipe_config
    from relevance.registry import log_step
    from relevance.training.finetune import finetune

    config = recipe_config(recipe, overrides)
    numbers = finetune(
        getattr(config, model),
        Path(dataset.path),
        Path(encoder.path),
        Path(checkpoint.path),
        seed=config.seed,
        guide=Path(guide.path) if guide else None,
        state=Path(state) / model if state else None,
    )
    for name, value in numbers.items():
        metrics.log_metric(name, value)
    log_step(
        tracking_uri,
        job=job,
        step=f"finetune-{model}",
        settings=getattr(config, model),
        metrics=numbers,
    )
