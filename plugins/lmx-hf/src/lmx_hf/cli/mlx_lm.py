"""`lmx mlx-lm`"""

import click

from lmx_core.errors import ConfigError, did_you_mean

PROGRAMS = {
    "benchmark": "Measure how fast prompts are read and tokens come.",
    "cache_prompt": "Read a prompt once and keep what the model remembers of it.",
    "chat": "Talk with a model.",
    "evaluate": "Run tasks of lm-eval (pip install lm-eval).",
    "generate": "Continue a prompt, or answer it.",
    "lora": "Train an adapter.",
    "perplexity": "Measure it on texts.",
    "server": "Answer over HTTP as OpenAI's API does.",
}
OURS = {
    "awq": "lmx quantize",
    "convert": "lmx convert",
    "dwq": "lmx quantize",
    "dynamic_quant": "lmx quantize",
    "fuse": "lmx convert MODEL FOLDER --adapter ADAPTER",
    "gptq": "lmx quantize",
    "upload": "lmx upload",
}
"""Programs that write a model as mlx-lm has it, and what does so for one of lmx."""


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("program", required=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def mlx_lm(program: str | None, arguments: tuple[str, ...]) -> None:
    """Run a program of mlx-lm on a model of lmx.

    Whatever names a model (--model, --draft-model, a field of a request) may be a run, a saved model, a folder of a Hugging
    Face checkpoint, or a repository of the hub: lmx builds it. All else is mlx-lm's: see lmx mlx-lm PROGRAM --help.
    Without a program the programs are listed.
    """
    if program is None:
        for name, what in PROGRAMS.items():
            click.echo(f"  {name:14}{what}")
        return
    if program in OURS:
        raise ConfigError(f"mlx-lm's {program} writes a model in mlx-lm's own form. For one of lmx: {OURS[program]}")
    if program not in PROGRAMS:
        raise ConfigError(
            f"no program {program!r}. {did_you_mean(program, PROGRAMS)}Programs of mlx-lm: {', '.join(PROGRAMS)}."
        )
    from lmx_hf.bridge.programs import run

    run(program, arguments)
