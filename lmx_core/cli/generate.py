"""`lmx generate`"""

from typing import Any

import click

from lmx_core.errors import CheckpointError, ConfigError


@click.command()
@click.argument("model")
@click.option("--prompt", required=True, help="What the model continues, or with --chat what it answers.")
@click.option("--chat", is_flag=True, help="Put the prompt to the model as its tokenizer's chat template writes it.")
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
    chat: bool,
    max_tokens: int | None,
    temp: float,
    top_k: int | None,
    top_p: float | None,
    min_p: float | None,
    repetition_penalty: float | None,
    seed: int | None,
) -> None:
    """Continue a prompt with the model of a run directory, of a saved model, or of what a plugin opens."""
    from lmx_core.data.tokenizers import stream_text
    from lmx_core.generation import stream_generate
    from lmx_core.opening import open_model

    opened = open_model(model)
    tokenizer = opened.tokenizer
    if tokenizer is None:
        raise CheckpointError(f"{model} has no tokenizer, so that no prompt can be read. Put one beside the model.")
    tokens = _tokens(tokenizer, prompt, chat)
    drawn = stream_generate(
        opened.model,
        tokens,
        max_tokens=max_tokens or opened.model.room_after(len(tokens), 200),
        stop=getattr(tokenizer, "eos_tokens", ()),
        seed=seed,
        temperature=temp,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
    )
    if not chat:
        click.echo(prompt, nl=False)
    for text in stream_text(tokenizer, drawn, skip=getattr(tokenizer, "special_tokens", ())):
        click.echo(text, nl=False)
    click.echo()


def _tokens(tokenizer: Any, prompt: str, chat: bool) -> list[int]:
    if not chat:
        return getattr(tokenizer, "encode_prompt", tokenizer.encode)(prompt)
    if not hasattr(tokenizer, "apply_chat_template"):
        raise ConfigError(
            f"{type(tokenizer).__name__} has no chat template. Leave --chat out: the model goes on with the prompt."
        )
    return tokenizer.apply_chat_template([{"role": "user", "content": prompt}])
