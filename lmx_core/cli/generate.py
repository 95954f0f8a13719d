"""`lmx generate`"""

import click


@click.command()
@click.argument("model", metavar="RUN")
@click.option("--prompt", required=True, help="What the model continues.")
@click.option("--max-tokens", type=click.IntRange(min=1), help="200, or what fits the model, unless given.")
@click.option(
    "--temp", default=0.8, show_default=True, type=click.FloatRange(min=0), help="0 takes the likeliest token."
)
@click.option("--top-k", type=click.IntRange(min=1), help="Draw from the k likeliest tokens.")
@click.option(
    "--top-p", type=click.FloatRange(0, 1, min_open=True), help="Draw from the likeliest that reach this probability."
)
@click.option(
    "--min-p", type=click.FloatRange(0, 1), help="Leave out what is less likely than this share of the likeliest."
)
@click.option("--repetition-penalty", type=click.FloatRange(0, min_open=True), help="Above 1: repeat less.")
@click.option("--seed", type=click.IntRange(0, 2**64 - 1), help="The same seed gives the same text.")
def generate(
    model: str,
    prompt: str,
    max_tokens: int | None,
    temp: float,
    top_k: int | None,
    top_p: float | None,
    min_p: float | None,
    repetition_penalty: float | None,
    seed: int | None,
) -> None:
    """Continue a prompt with the model of a run directory or of a saved model."""
    from lmx_core.checkpoint import load_model, model_directory
    from lmx_core.data.tokenizers import load_tokenizer, stream_text
    from lmx_core.generation import stream_generate

    tokenizer = load_tokenizer(model_directory(model) / "tokenizer.json")
    loaded, tokens = load_model(model), tokenizer.encode(prompt)
    drawn = stream_generate(
        loaded,
        tokens,
        max_tokens=max_tokens or loaded.room_after(len(tokens), 200),
        seed=seed,
        temperature=temp,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
    )
    click.echo(prompt, nl=False)
    for text in stream_text(tokenizer, drawn):
        click.echo(text, nl=False)
    click.echo()
