"""Step: the tokenizer, extended by the shop's words, and checked."""

from kfp import dsl

from components import _image


@dsl.component(base_image=_image.DATA, install_kfp_package=False)
def extend_vocabulary(
    dataset: dsl.Input[dsl.Dataset],
    recipe: str,
    overrides: list,
    tracking_uri: str,
    vocabulary: dsl.Output[dsl.Artifact],
    validation: dsl.Output[dsl.Artifact],
    page: dsl.Output[dsl.HTML],
    table: dsl.Output[dsl.Markdown],
    metrics: dsl.Output[dsl.Metrics],
) -> None:
    """See ``relevance.data.vocabulary.extend_vocabulary`` and ``validate_vocabulary``."""
    from pathlib import Path

    from components._step import open_step
    from relevance.data.contract import validate_vocabulary
    from relevance.data.vocabulary import extend_vocabulary, format_table
    from relevance.recipes import recipe_config

    config = recipe_config(recipe, overrides)
    settings = {"vocabulary": config.vocabulary, "contract": config.contract}
    with open_step("extend-vocabulary", settings, metrics, tracking_uri) as step:
        out = Path(vocabulary.path)
        step.log(extend_vocabulary(config.vocabulary, Path(dataset.path), out))
        text = format_table(out / "table.json")
        Path(table.path).write_text(f"```\n{text}\n```\n")
        print(text)
        try:
            step.log(validate_vocabulary(config.contract, out, Path(validation.path)))
        finally:
            step.report(Path(validation.path), page)
