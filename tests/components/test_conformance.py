"""Every built-in component and every architecture keeps the promises of its kind."""

import base64
import hashlib
import importlib.util

import attrs
import pytest

from lmx_core import BlockConfig, ConfigurableBlock, LanguageModel, ModelConfig, spec
from lmx_core.construct import build
from lmx_core.data.corpus import DataConfig
from lmx_core.data.datasets import shakespeare as datasets
from lmx_core.data.prepare import prepare
from lmx_core.errors import ConfigError
from lmx_core.plugins import CORE
from lmx_core.registry import kinds, registry
from lmx_core.testing import SMALL, cases, checks


def core(kind):
    return [name for name in registry(kind).names() if registry(kind).find(name).dist == CORE]


def named(check):
    return check.__name__


def block(**changes):
    return attrs.evolve(SMALL, **changes)


BLOCKS = {  # beyond those of the suites
    **{f"ffn {name}": block(ffn=name) for name in core("ffn")},
    **{
        f"ffn {name} {act}": block(ffn=spec(name, activation=act))
        for name in ("standard", "gated")
        for act in ("relu", "gelu_tanh")
    },
    **{f"norm {name}": block(norm=name) for name in core("norm")},
    **{f"norm {name} without biases": block(norm=name, bias=False) for name in core("norm")},
    "heads wider than the model": block(head_dim=32),
    "multi-query": block(n_kv_heads=1, position="rope"),
}


def called(kind, name):
    """How the suite knows it, also with --renamed."""
    return f"{kind}.{registry(kind).find(name).name}"


def fitting(name):
    """The changes in the kit's config without which a mixer refuses it."""
    try:
        build("attention", name, SMALL)
    except ConfigError:
        return {"n_kv_heads": SMALL.n_heads}
    return {}


WITH_FILES = {called("dataset", name) for name in ("shakespeare", "text", "mixture", "tokens")}
WITH_FILES |= {called("tokenizer", "tiktoken")}
EXTRAS = {called("callback", name) for name in ("tensorboard", "wandb", "mlflow", "trackio")}
"""Held to their suite in tests/train/test_loggers.py, where they are installed."""
BY_ITSELF = {f"{kind}.{name}": {} for kind in kinds() for name in core(kind)}
BY_ITSELF |= {f"attention.{name}": fitting(name) for name in core("attention")}
LONGROPE = {"short_factor": [1.0] * 8, "long_factor": [1.0, 1.5, *range(2, 8)], "original_max_seq_len": 512}
FACTOR = {called("scaling", name): {"factor": 4.0} for name in ("linear", "dynamic", "yarn")}
COURSE = {"steps": 50, "start": 4, "multiple": 2}
JOINED = {"parts": [{"schedule": "constant", "share": 3}, {"schedule": "linear", "peak": 0.5, "warmup_steps": 2}]}
NEEDED = {
    called("scaling", "longrope"): LONGROPE,
    **FACTOR,
    called("curriculum", "length"): COURSE,
    called("schedule", "joined"): JOINED,
    called("curriculum", "difficulty"): {"steps": 50},
}
"""Options without which a component cannot be built."""
VARIANTS = [
    *((name, config, NEEDED.get(name, {})) for name, config in BY_ITSELF.items() if name not in WITH_FILES | EXTRAS),
    *((f"attention.{name}", {**fitting(name), "bias": False}, {}) for name in core("attention")),
    (called("attention", "gqa"), {"n_kv_heads": 1, "d_model": 32, "head_dim": 16}, {}),
    *((f"{kind}.{name}", {"bias": False}, {}) for kind in ("ffn", "norm") for name in core(kind)),
    *(
        (f"schedule.{name}", {"max_steps": 7, "warmup_steps": 3}, NEEDED.get(f"schedule.{name}", {}))
        for name in core("schedule")
    ),
    *((called("schedule", "wsd"), {}, {"shape": shape, "decay_fraction": 0.9}) for shape in ("linear", "cosine")),
    (called("schedule", "cosine"), {}, {"warmup_from_zero": True, "final_fraction": 0.0}),
    (called("schedule", "inverse_sqrt"), {}, {"timescale": 7}),
    (called("optimizer", "adamw"), {"weight_decay": 0.1, "learning_rate": 0.1}, {}),
    (called("optimizer", "sgd"), {}, {"momentum": 0.0}),
    (called("optimizer", "sgd"), {}, {"nesterov": True}),
    (called("optimizer", "muon"), {}, {"scale": "original", "nesterov": False, "adamw_learning_rate": 0.01}),
    (called("optimizer", "adafactor"), {}, {"eps": 1e-30, "clip": 2.0}),
    *(
        (called("attention", name), {}, options)
        for name, options in (
            ("sliding_window", {"window": 9}),
            ("chunked", {"chunk_size": 16}),
            ("gqa", {"softcap": 2.0, "sinks": True, "scale": 0.2, "clip": 1.5, "qkv_bias": False}),
            ("gqa", {"qk_norm": "rms_norm", "query_growth": 0.3, "query_growth_every": 8, "query_growth_shift": 1}),
            ("gqa", {"qk_norm": {"name": "layer_norm", "weight": False, "bias": False}, "qk_norm_over": "each_head"}),
            ("gqa", {"qk_norm": "rms_norm", "qk_norm_over": "all_heads", "o_bias": False, "output_gate": True}),
            (
                "sliding_window",
                {"window": 9, "qk_norm": {"name": "rms_norm", "weight": False}, "qk_norm_after_position": True},
            ),
        )
    ),
    *(
        (called("position", "rope"), {}, options)
        for options in (
            {"fraction": 0.5, "interleaved": True, "theta": 100.0},
            {"scaling": {"name": "yarn", "factor": 4.0, "original_max_seq_len": 512}},
            {"scaling": {"name": "dynamic", "factor": 4.0}},
        )
    ),
    *(
        (called("source", "packed"), {}, {"strategy": strategy, "boundaries": boundaries})
        for strategy in ("bfd", "bfd_split", "wrapped")
        for boundaries in (True, False)
    ),
    (called("source", "windows"), {}, {"shuffle": False}),
    (called("source", "padded"), {"batch_size": 7}, {"bucketed": True, "multiple": 3}),
    (called("curriculum", "length"), {}, {**COURSE, "stages": 3}),
    (called("curriculum", "difficulty"), {}, {"steps": 50, "by": "length"}),
    (called("position", "alibi"), {}, {"scale": 0.25, "from_above": True}),
    (called("position", "learned"), {}, {"skip": 2}),
    (called("position", "t5"), {}, {"n_buckets": 8, "max_distance": 20}),
    *(
        (called("ffn", name), {}, {"activation": act, "bias": False})
        for name in ("standard", "gated")
        for act in ("xielu", "relu2", "quick_gelu")
    ),
    *((called("norm", name), {}, {"unit_offset": True}) for name in ("rms_norm", "layer_norm")),
    *((called("norm", name), {}, {"weight": False}) for name in ("rms_norm", "layer_norm")),
    (called("layout", "parallel"), {}, {"norms": 2, "residual_multiplier": 0.5}),
    (called("layout", "sandwich"), {}, {"residual_multiplier": 0.3}),
    (called("layout", "normed_residual"), {}, {"attention_beta": 0.7, "ffn_beta": 2.0}),
    (called("cache", "rotating"), {}, {"max_size": 20, "keep": 3}),
    (called("cache", "quantised"), {}, {"bits": 4, "group_size": 32, "max_size": 30, "keep": 2}),
    *(
        (called("scaling", name), {}, options)
        for name, options in (
            ("linear", {"factor": 4.0}),
            ("dynamic", {"factor": 4.0}),
            ("dynamic", {"alpha": 100.0}),
            ("yarn", {"factor": 4.0, "original_max_seq_len": 512, "truncate": False}),
            ("yarn", {"factor": 4.0, "original_max_seq_len": 512, "mscale": 1.0, "mscale_all_dim": 0.7}),
            ("proportional", {"fraction": 0.5, "factor": 2.0}),
        )
    ),
]


@pytest.mark.parametrize(
    "check",
    [
        pytest.param(
            case.run,
            id="-".join([name, *map(str, (*config.values(), *options.items())), case.name]),
            # Parts in options are plain names, which --renamed leaves as they are.
            marks=[pytest.mark.once] if name.startswith("config.") or {"qk_norm", "scaling"} & options.keys() else [],
        )
        for name, config, options in VARIANTS
        for case in cases(name, config=config, options=options)
    ],
)
def test_every_component_keeps_its_promises(check):
    check()


def test_components_that_read_files_keep_theirs(tmp_path, monkeypatch):
    (tmp_path / "one.txt").write_text("A first text.\n" * 30)
    (tmp_path / "two.txt").write_text("A second one.\n" * 30)
    ranks = [
        f"{base64.b64encode(token).decode()} {i}" for i, token in enumerate([*map(_byte, range(256)), b"th", b"e "])
    ]
    (tmp_path / "ranks.txt").write_text("\n".join(ranks))
    play = b"To be, or not to be.\n" * 40 + b"That is the question."
    (tmp_path / "play.txt").write_bytes(play)
    published = attrs.evolve(datasets.SHAKESPEARE, size=len(play), sha256=hashlib.sha256(play).hexdigest())
    monkeypatch.setattr(datasets, "SHAKESPEARE", published)
    options = {
        "dataset.shakespeare": {"path": str(tmp_path / "play.txt")},
        "dataset.text": {"paths": [str(tmp_path / "one.txt"), str(tmp_path / "two.txt")]},
        "dataset.tokens": {"path": str(tmp_path / "tokens")},
        "tokenizer.tiktoken": {"path": str(tmp_path / "ranks.txt")},
    }
    prepare(DataConfig(dataset=spec("text", **options["dataset.text"])), tmp_path / "tokens")
    of_parts = [{"dataset": {"name": name, **options[f"dataset.{name}"]}} for name in ("shakespeare", "tokens")]
    options["dataset.mixture"] = {"parts": of_parts}
    if importlib.util.find_spec("tiktoken") is None:  # an extra
        del options["tokenizer.tiktoken"]
    for name, given in options.items():
        for case in cases(name, options=given):
            case.run()


def _byte(number):
    return bytes([number])


def test_every_component_of_core_is_held_to_its_suite():
    assert {name for name, _, _ in VARIANTS} | WITH_FILES | EXTRAS == set(BY_ITSELF)


@pytest.mark.parametrize("check", checks.MIXER, ids=named)
@pytest.mark.parametrize("config", BLOCKS.values(), ids=BLOCKS)
def test_every_block_is_a_mixer(config, check):
    check(lambda: ConfigurableBlock(config, build("position", config.position, config)))


MODELS = {  # beyond those of the suites
    **{
        f"nothing mixed, {position}": ModelConfig(
            block=block(attention="none", position=position), vocab_size=50, n_layers=2
        )
        for position in ("learned", "sinusoidal")
    },
    "untied post-norm": ModelConfig(block=block(layout="post_norm"), vocab_size=50, n_layers=2, tie_embeddings=False),
    "layers that differ": ModelConfig(
        block=block(position="rope"),
        vocab_size=50,
        n_layers=3,
        block_configs=[
            block(position="rope"),
            block(position="alibi", ffn="none", attention="mha", n_kv_heads=4),
            block(position="rope", rope_theta=500.0, layout="post_norm", norm="layer_norm", bias=True),
        ],
    ),
}


@pytest.mark.parametrize("check", checks.MODEL, ids=named)
@pytest.mark.parametrize("config", MODELS.values(), ids=MODELS)
def test_every_model_is_a_mixer(config, check):
    check(lambda: LanguageModel(config))


def test_the_default_config_is_a_model():
    """`BlockConfig()` and `ModelConfig()` say nothing that does not fit together."""
    assert LanguageModel(ModelConfig(block=BlockConfig(), n_layers=1, vocab_size=10)).count_parameters() > 0
