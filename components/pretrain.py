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
    state: str,
    encoder: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
) -> None:
    """See ``relevance.training.pretrain.pretrain``."""
    from pathlib import Path

    from components._step import open_step, resumable
    from relevance.recipes import recipe_config
    from relevance.training.pretrain import pretrain

    config = recipe_config(recipe, overrides)
    settings = {"pretrain": config.pretrain, "seed": config.seed}
    with (
        open_step("pretrain", settings, metrics, tracking_uri) as step,
        resumable(state, "pretrain") as states,
    ):
        step.log(
            pretrain(
                config.pretrain,
                Path(dataset.path),
                Path(vocabulary.path),
                Path(encoder.path),
                seed=config.seed,
                state=states,
            )
        )
