"""Files say the same as Python, and every mistake in one is reported at once, with its path."""

import json

import attrs
import pytest

from lmx_core import AttentionBase, BlockConfig, ModelConfig, attention_registry, make_config, spec
from lmx_core.config import ComponentSpec
from lmx_core.errors import ConfigError
from lmx_core.serialize import plain, read_file, structure, to_toml
from lmx_core.train.config import RunConfig, TrainConfig


@attrs.frozen(kw_only=True)
class LatentOptions:
    kv_lora_rank: int = attrs.field(default=512, validator=attrs.validators.gt(0))
    q_lora_rank: int | None = None


@pytest.fixture
def latent():
    """An attention with options, registered in this process."""

    @attention_registry.register("latent")
    class Latent(AttentionBase):
        Options = LatentOptions

    yield Latent
    attention_registry.unregister("latent")


CONFIGS = [
    ModelConfig(),
    make_config("llama", size="tiny"),
    make_config("gpt", size="tiny"),
    ModelConfig(
        n_layers=2, block_configs=[BlockConfig(n_kv_heads=2), BlockConfig(attention=spec("x", a=[1, 2], b={"c": True}))]
    ),
]


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("suffix", ["toml", "json", "yaml"])
def test_a_config_survives_a_file(config, suffix, tmp_path):
    """Also where its components are not installed."""
    file = tmp_path / f"model.{suffix}"
    if suffix == "yaml":
        yaml = pytest.importorskip("yaml", reason="YAML is an extra")
        file.write_text(yaml.safe_dump(plain(config)))
    else:
        file.write_text(to_toml(plain(config)) if suffix == "toml" else json.dumps(plain(config)))
    assert structure(read_file(file), ModelConfig, str(file)) == config


def test_none_is_written_where_it_is_not_the_default():
    """`max_grad_norm = "none"` switches clipping off, in a file as in Python."""
    config = TrainConfig(max_grad_norm=None)
    assert plain(config)["max_grad_norm"] == "none"
    assert "max_seconds" not in plain(config)
    assert structure(plain(config), TrainConfig, "x") == config


def problems(data, cls=ModelConfig, path="model"):
    with pytest.raises(ConfigError) as refused:
        structure(data, cls, "tiny.toml", path, installed=True)
    return str(refused.value).splitlines()


def test_every_problem_is_in_one_report(latent):
    """The page of DESIGN, word for word."""
    block = {"d_model": "16", "attention": {"name": "latent", "kv_lora_rnk": 3}}
    assert problems({"block": block, "n_layers": 0}) == [
        "3 problems in tiny.toml",
        "  model.block.d_model: expected int, got '16' (str)",
        "  model.block.attention.kv_lora_rnk: unknown option; did you mean 'kv_lora_rank'? "
        "(LatentOptions has kv_lora_rank, q_lora_rank)",
        "  model.n_layers: must be > 0, got 0",
    ]


@pytest.mark.parametrize(
    ("data", "line"),
    [
        ({"n_layers": 512.9}, "model.n_layers: expected int, got 512.9 (float)"),
        ({"tie_embeddings": "false"}, "model.tie_embeddings: expected bool, got 'false' (str)"),
        ({"n_layer": 2}, "model.n_layer: unknown key; did you mean 'n_layers'?"),
        ({"block": 3}, "model.block: expected a table, got 3 (int)"),
        ({"block": {"n_kv_heads": "2"}}, "model.block.n_kv_heads: expected int or none, got '2' (str)"),
        ({"block": {"d_model": 65}}, "model.block: d_model=65 is not a multiple of n_heads=8"),
        (
            {"block": {"attention": {"windw": 3}}},
            "model.block.attention.windw: unknown option (AttentionOptions has qkv_bias",
        ),
        ({"block": {"attention": {"name": 3}}}, "model.block.attention: expected a component's name or { name"),
        ({"block": {"attention": 3}}, "model.block.attention: expected a component's name or { name"),
        (
            {"block": {"attention": {"name": "none", "window": 3}}},
            "model.block.attention.window: unknown option; 'none' has no",
        ),
        (
            {"block": {"attention": "slidng"}},
            "model.block.attention: no attention named 'slidng'. Did you mean 'sliding_window'? "
            "Installed: chunked, gqa, mha, none, sliding_window, sliding_window_gqa.",
        ),
        (
            {"block": {"ffn": {"name": "gated", "activation": "sillu"}}},
            "model.block.ffn.activation: expected 'gelu' or",
        ),
        ({"block_configs": [{}, {"d_modl": 3}]}, "model.block_configs[1].d_modl: unknown key; did you mean 'd_model'?"),
        ({"block_configs": 3}, "model.block_configs: expected a list of BlockConfig or none, got 3 (int)"),
        ({"factory": "lama"}, "model: no config named 'lama'. Did you mean 'llama'? Installed: "),
        ({"factory": 3}, "model.factory: expected str, got 3 (int)"),
        ({"factory": "llama", "size": "big"}, "model.size: llama has no size 'big'. Sizes: tiny"),
        ({"factory": "llama", "d_modl": 3}, "model.d_modl: unknown argument. Did you mean 'd_model'?"),
        ({"factory": "llama", "n_layers": "3"}, "model.n_layers: expected int, got '3' (str)"),
        ({"factory": "llama", "block": {}}, "model.block: unknown argument (llama has vocab_size, d_model, "),
        ({"xyzzy": 2}, "model.xyzzy: unknown key (ModelConfig has block, vocab_size, "),
        (
            {"block": {"ffn": {"name": "gated", "xyzzy": 2}}},
            "model.block.ffn.xyzzy: unknown option (GatedOptions has activation, bias)",
        ),
        ({"factory": "llama", "d_model": 65}, "model: d_model=65 is not a multiple of n_heads=32"),
    ],
)
@pytest.mark.usefixtures("plugins")
def test_each_problem_has_its_path(data, line):
    headline, *found = problems(data)
    assert headline == "1 problem in tiny.toml"
    assert found[0].startswith(f"  {line}")


def test_a_file_writes_none_for_an_argument_as_for_a_field():
    """Where None fits; a component's slot would be the component of that name."""
    written = structure({"factory": "gemma3", "size": "tiny", "window": "none"}, ModelConfig, "x")
    assert written == make_config("gemma3", size="tiny", window=None)
    assert written != make_config("gemma3", size="tiny")
    with pytest.raises(ConfigError, match="n_layers: expected int, got 'none'"):
        structure({"factory": "gemma3", "size": "tiny", "n_layers": "none"}, ModelConfig, "x")
    scaled = structure({"factory": "llama", "size": "tiny", "rope_scaling": "none"}, ModelConfig, "x")
    assert scaled.block.position == spec("rope", scaling="none")


def test_a_file_names_a_factory_or_spells_the_model_out():
    assert structure({"factory": "llama", "size": "tiny", "n_layers": 3}, ModelConfig, "x") == make_config(
        "llama", size="tiny", n_layers=3
    )


def test_options_are_held_to_their_class_when_a_component_is_built(latent):
    from lmx_core import build

    with pytest.raises(ConfigError, match=r"the options of attention 'latent'\n  kv_lora_rank: must be > 0, got 0"):
        build("attention", spec("latent", kv_lora_rank=0), BlockConfig())
    with pytest.raises(ConfigError, match="kv_lora_rank: expected int, got '3'"):
        build("attention", spec("latent", kv_lora_rank="3"), BlockConfig())


def test_missing_keys_are_named():
    assert problems({}, RunConfig, "")[1] == "  model: is missing"


def test_a_spec_may_come_ready_made():
    assert structure({"attention": ComponentSpec("gqa")}, BlockConfig, "x").attention == spec("gqa")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.toml", "[model\n", r"a.toml is not valid TOML: .*line 1"),
        ("a.json", "{", "a.json is not valid JSON"),
        ("a.json", "[1]", "holds a list; a config is a table"),
        ("a.ini", "", r"a config ends in .toml, .json, .yaml, .yml, got '.ini'"),
        ("a", "", "got 'no suffix'"),
    ],
)
def test_files_that_are_no_config(name, text, message, tmp_path):
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_file(tmp_path / name)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot read .*none.toml: No such file"):
        read_file(tmp_path / "none.toml")


def test_yaml_runs_no_code(tmp_path):
    pytest.importorskip("yaml", reason="YAML is an extra")
    (tmp_path / "a.yaml").write_text("!!python/object/apply:os.system ['true']")
    with pytest.raises(ConfigError, match="not valid YAML"):
        read_file(tmp_path / "a.yaml")


def test_options_alone_are_those_of_the_default_component():
    assert structure({"optimizer": {"beta2": 0.9}}, TrainConfig, "x").optimizer == spec("adamw", beta2=0.9)


@attrs.frozen(kw_only=True)
class Inner:
    size: int = 1


@attrs.frozen(kw_only=True)
class RichOptions:
    sizes: list[int] = attrs.field(factory=list)
    pairs: tuple[int, ...] = ()
    table: dict[str, int] = attrs.field(factory=dict)
    record: Inner | None = None
    part: ComponentSpec | None = attrs.field(default=None, metadata={"kind": "ffn"})


def test_options_of_every_shape_can_be_set():
    """Lists, tables, records and parts by name, from a file and from Python."""

    class Rich(AttentionBase):
        Options = RichOptions

        def __init__(self, config, options):
            super().__init__(config)
            self.options = options

    attention_registry.register("rich")(Rich)
    try:
        given = {"sizes": [1, 2], "pairs": [3], "table": {"a": 1}, "record": {"size": 4}, "part": "gated"}
        expected = RichOptions(sizes=[1, 2], pairs=(3,), table={"a": 1}, record=Inner(size=4), part=spec("gated"))
        for part in ("gated", spec("gated")):
            from lmx_core import build

            assert build("attention", spec("rich", **{**given, "part": part}), BlockConfig()).options == expected
        block = structure({"attention": {"name": "rich", **given}}, BlockConfig, "x", installed=True)
        assert structure(plain(block), BlockConfig, "x") == block
    finally:
        attention_registry.unregister("rich")


def test_parts_of_parts_survive_a_file():
    """A spec within a spec is plain data like what a file holds."""
    block = BlockConfig(ffn=spec("outer", inner=spec("gated", activation="relu"), other=spec("standard")))
    assert structure(plain(block), BlockConfig, "x") == block


def test_no_option_can_be_called_name():
    with pytest.raises(ConfigError, match="an option cannot be called 'name'"):
        ComponentSpec("a", {"name": "b"})


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"vocab_size": 2**40}, "vocab_size: must be < 2147483648"),
        ({"block": {"rope_theta": 10**400}}, "rope_theta: expected float"),
        ({1: 2}, "1: unknown key (ModelConfig has block"),
    ],
)
def test_numbers_out_of_range_are_refused(bad, message):
    assert message in problems(bad)[1]


def test_nesting_without_end_is_an_error_for_people(tmp_path):
    (tmp_path / "deep.json").write_text("[" * 100_000)
    with pytest.raises(ConfigError, match="not valid JSON"):
        read_file(tmp_path / "deep.json")
