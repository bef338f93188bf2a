"""Step: the tokenizer, extended by the shop's words."""

from kfp import dsl

from components import _image


@dsl.component(base_image=_image.DATA, install_kfp_package=False)
def extend_vocabulary(
    dataset: dsl.Input[dsl.Dataset],
    recipe: str,
    overrides: list,
    tracking_uri: str,
    vocabulary: dsl.Output[dsl.Artifact],
    table: dsl.Output[dsl.Markdown],
    metrics: dsl.Output[dsl.Metrics],
) -> None:
    """See ``relevance.data.vocabulary.extend_vocabulary``."""
    from pathlib import Path

    from components._step import open_step
    from relevance.data.vocabulary import extend_vocabulary, format_table
    from relevance.recipes import recipe_config

    config = recipe_config(recipe, overrides)
    settings = {"vocabulary": config.vocabulary}
    with open_step("extend-vocabulary", settings, metrics, tracking_uri) as step:
        out = Path(vocabulary.path)
        step.log(extend_vocabulary(config.vocabulary, Path(dataset.path), out))
        text = format_table(out / "table.json")
        Path(table.path).write_text(f"```\n{text}\n```\n")
        print(text)
