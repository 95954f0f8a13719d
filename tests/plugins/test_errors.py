"""Every form of error that people meet about components, to the letter."""

import attrs
import pytest

from lmx_core import LanguageModel, make_config
from lmx_core.errors import LmxError
from lmx_core.registry import registry
from lmx_core.serialize import read_file
from lmx_core.train.config import run_config

MIXER = """
import attrs
from lmx_core import AttentionBase

@attrs.frozen(kw_only=True)
class MLAOptions:
    kv_lora_rank: int = 512
    q_lora_rank: int = 1536
    rope_head_dim: int = 64

class Mixer(AttentionBase):
    takes = frozenset()

    def __call__(self, x, mask=None, cache=None):
        return x, cache

class MLA(Mixer):
    Options = MLAOptions

    def __init__(self, config, options):
        super().__init__(config)
"""


def told(call):
    with pytest.raises(LmxError) as refused:
        call()
    return str(refused.value)


def test_a_name_that_is_nearly_right(plugins):
    plugins.install("acme-window", {"attention.striding_window": "acme_window:Mixer"}, MIXER)
    assert told(lambda: registry("attention").get("stridng_window")) == (
        "no attention named 'stridng_window'. Did you mean 'striding_window'? "
        "Installed: chunked, gqa, mha, none, sliding_window, sliding_window_gqa, striding_window."
    )


@pytest.mark.usefixtures("plugins")
def test_a_plugin_of_ours_that_is_not_installed():
    assert told(lambda: registry("attention").get("mla")) == (
        "no attention named 'mla'. lmx-attn-mla provides it: pip install lmx-attn-mla"
    )


def test_two_plugins_that_offer_one_name(plugins):
    for name in ("lmx-attn-mla", "acme-mla"):
        plugins.install(name, {"attention.mla": f"{name.replace('-', '_')}:MLA"}, MIXER)
    assert told(lambda: registry("attention").get("mla")) == (
        "attention 'mla' is provided by acme-mla and lmx-attn-mla. Write one of: acme-mla/mla, lmx-attn-mla/mla."
    )


def test_a_plugin_that_cannot_be_imported(plugins):
    plugins.install("lmx-ffn-relu2", {"ffn.relu2": "lmx_ffn_relu2:ReLU2"}, "import nosuchlib", version="0.1.0")
    assert told(lambda: registry("ffn").get("relu2")) == (
        "ffn.relu2 from lmx-ffn-relu2 0.1.0 (lmx_ffn_relu2:ReLU2) could not be loaded: ModuleNotFoundError: "
        "No module named 'nosuchlib'. Other components are not affected; LMX_DISABLE=lmx-ffn-relu2 hides this one."
    )


def test_a_position_that_a_mixer_would_ignore(plugins):
    plugins.install("acme-delta", {"attention.gated_deltanet": "acme_delta:Mixer"}, MIXER)
    config = make_config("llama", size="tiny")
    delta = attrs.evolve(config.block, attention="gated_deltanet", position="alibi")
    blocks = [config.block, config.block, config.block, delta]
    model = attrs.evolve(config, n_layers=4, block_configs=blocks)
    assert told(lambda: LanguageModel(model)) == (
        "model.block_configs[3]: attention 'gated_deltanet' takes no position; 'alibi' provides a bias. "
        'Set position = "none".'
    )


def test_all_problems_of_a_file_are_one_report(plugins, tmp_path, monkeypatch):
    plugins.install("acme-mla", {"attention.mla": "acme_mla:MLA"}, MIXER)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.toml").write_text(
        '[model.block]\nd_model = "16"\nattention = { name = "mla", kv_lora_rnk = 8 }\n[model]\nn_layers = 0\n'
    )
    assert told(lambda: run_config(read_file(tmp_path / "tiny.toml"), "tiny.toml")).splitlines() == [
        "3 problems in tiny.toml",
        "  model.block.d_model: expected int, got '16' (str)",
        "  model.block.attention.kv_lora_rnk: unknown option; did you mean 'kv_lora_rank'? "
        "(MLAOptions has kv_lora_rank, q_lora_rank, rope_head_dim)",
        "  model.n_layers: must be > 0, got 0",
    ]


def test_a_component_that_cannot_be_built(plugins):
    """Its author's mistake is named, not shown as a traceback into lmx."""
    plugins.install("acme-ffn", {"ffn.own": "acme_ffn:Own"}, "class Own:\n    def __call__(self, x): ...\n")
    config = make_config("llama", size="tiny")
    assert told(lambda: LanguageModel(attrs.evolve(config, block=attrs.evolve(config.block, ffn="own")))) == (
        "ffn.own from acme-ffn 1.0 could not be built: TypeError: Own() takes no arguments"
    )


def test_options_with_an_annotation_that_means_nothing(plugins):
    source = MIXER.replace("rope_head_dim: int", 'rope_head_dim: "Nonsense"')
    plugins.install("acme-mla", {"attention.mla": "acme_mla:MLA"}, source)
    assert "acme_mla.MLAOptions has an annotation that means nothing: name 'Nonsense'" in told(
        lambda: run_config({"model": {"block": {"attention": "mla"}}}, "it")
    )
