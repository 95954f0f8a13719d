"""A saved model says what it was built with; other installations read it rightly, or say what to install."""

import json
import re
import warnings

import attrs
import pytest

from lmx_core import LanguageModel, ffn_registry, load_model, make_config, save_model, spec
from lmx_core.checkpoint import requirements
from lmx_core.errors import CheckpointError, LmxError, LmxWarning, UnknownComponentError
from lmx_core.model import flat_parameters

from .sources import RELU2

LEAKY = """
import attrs
from mlx import nn

@attrs.frozen(kw_only=True)
class LeakyOptions:
    slope: float = 0.1

class Leaky(nn.Module):
    Options = LeakyOptions

    def __init__(self, config, options):
        super().__init__()
        self.slope = options.slope
        self.up = nn.Linear(config.d_model, config.d_ff)
        self.down = nn.Linear(config.d_ff, config.d_model)

    def __call__(self, x):
        return self.down(nn.leaky_relu(self.up(x), self.slope))
"""
LEAKY_2 = (
    LEAKY.replace("slope: float", "negative_slope: float").replace("options.slope", "options.negative_slope")
    + """
    options_version = 2

    @staticmethod
    def migrate(options, version):
        assert version == 1
        return {"negative_slope" if key == "slope" else key: value for key, value in options.items()}
"""
)
ENTRIES = {"ffn.leaky": "acme_ffn:Leaky"}


def built(ffn):
    config = make_config("llama", size="tiny")
    return LanguageModel(attrs.evolve(config, block=attrs.evolve(config.block, ffn=ffn)))


@pytest.fixture
def saved(plugins, tmp_path):
    """A model with a plugin's FFN, saved; and the directory its plugin is in."""
    site = plugins.install("acme-ffn", ENTRIES, LEAKY, version="1.3")
    save_model(built(spec("leaky", slope=0.3)), tmp_path / "model")
    return tmp_path / "model", site


def record_of(path):
    return json.loads((path / "config.json").read_text())


def test_a_model_records_what_it_was_built_with(saved):
    path, _ = saved
    assert {
        "kind": "ffn",
        "name": "leaky",
        "distribution": "acme-ffn",
        "version": "1.3",
        "entry_point": "acme_ffn:Leaky",
        "options_version": 1,
    } in record_of(path)["components"]
    assert {"attention", "ffn", "norm", "position", "layout"} == {
        each["kind"] for each in record_of(path)["components"]
    }
    assert requirements(path) == ["lmx-core==0.1.0", "acme-ffn==1.3"]
    load_model(path)


def test_a_missing_plugin_is_named_with_what_to_install(plugins, saved):
    """And its requirements can still be read."""
    path, site = saved
    plugins.uninstall(site)
    with pytest.raises(UnknownComponentError) as refused:
        load_model(path)
    assert str(refused.value) == "no ffn named 'leaky'. acme-ffn provides it: pip install acme-ffn"
    assert requirements(path) == ["lmx-core==0.1.0", "acme-ffn==1.3"]
    plugins.install("acme-ffn", ENTRIES, LEAKY, version="1.3")
    load_model(path)


def test_several_missing_plugins_are_one_report(plugins, tmp_path):
    first = plugins.install("acme-ffn", ENTRIES, LEAKY)
    second = plugins.install("acme-relu", {"ffn.relu2": "acme_relu:ReLU2"}, RELU2)
    config = make_config("llama", size="tiny")
    blocks = [attrs.evolve(config.block, ffn=name) for name in ("leaky", "relu2")]
    save_model(LanguageModel(attrs.evolve(config, n_layers=2, block_configs=blocks)), tmp_path / "model")
    for site in (first, second):
        plugins.uninstall(site)
    with pytest.raises(CheckpointError) as refused:
        load_model(tmp_path / "model")
    assert str(refused.value) == (
        f"2 problems in {tmp_path / 'model' / 'config.json'}\n"
        "  ffn.leaky: no ffn named 'leaky'. acme-ffn provides it: pip install acme-ffn\n"
        "  ffn.relu2: no ffn named 'relu2'. acme-relu provides it: pip install acme-relu\n"
        "pip install acme-ffn acme-relu"
    )


def test_a_hidden_plugin_is_not_to_be_installed(plugins, saved, monkeypatch):
    monkeypatch.setenv("LMX_DISABLE", "acme-ffn")
    plugins.forget()
    with pytest.raises(UnknownComponentError, match="acme-ffn offers it, and LMX_DISABLE hides that"):
        load_model(saved[0])


def test_another_distribution_of_the_name_is_not_taken_instead(plugins, saved):
    path, site = saved
    plugins.uninstall(site)
    plugins.install("other-ffn", {"ffn.leaky": "other_ffn:Leaky"}, LEAKY)
    with pytest.raises(UnknownComponentError, match="acme-ffn provides it: pip install acme-ffn"):
        load_model(path)


def test_a_clash_that_came_later_changes_nothing(plugins, saved):
    """The bare name still means the distribution that the model was saved with."""
    path, _ = saved
    before = flat_parameters(load_model(path))
    plugins.install("other-ffn", {"ffn.leaky": "other_ffn:Leaky"}, LEAKY.replace("config.d_ff", "2 * config.d_ff"))
    loaded = load_model(path)
    assert loaded.config.block.ffn.name == "acme-ffn/leaky"
    assert all((weight == before[name]).all() for name, weight in flat_parameters(loaded).items())
    save_model(loaded, path)
    assert load_model(path).config == loaded.config


def test_another_version_is_a_warning(plugins, saved):
    path, site = saved
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_model(path)
    plugins.uninstall(site)
    plugins.install("acme-ffn", ENTRIES, LEAKY, version="1.4")
    with pytest.warns(LmxWarning, match=r"config.json: saved with acme-ffn 1.3, read with acme-ffn 1.4") as told:
        load_model(path)
    assert len(told) == 1


@pytest.mark.filterwarnings("ignore::lmx_core.errors.LmxWarning")
def test_options_of_an_older_version_are_migrated(plugins, saved):
    path, site = saved
    plugins.uninstall(site)
    plugins.install("acme-ffn", ENTRIES, LEAKY_2, version="2.0")
    loaded = load_model(path)
    assert loaded.config.block.ffn == spec("leaky", negative_slope=0.3)
    save_model(loaded, path)
    assert [each["options_version"] for each in record_of(path)["components"] if each["kind"] == "ffn"] == [2]
    assert load_model(path).config == loaded.config  # and not migrated twice


@pytest.mark.filterwarnings("ignore::lmx_core.errors.LmxWarning")
@pytest.mark.parametrize(
    ("source", "error"),
    [
        (
            LEAKY.replace("Options = ", "options_version = 2; Options = "),
            'options of version 1; acme-ffn 2.0 reads version 2 and has no migrate(). pip install "acme-ffn==1.3"',
        ),
        (
            LEAKY_2.replace("version == 1", "version == 7"),
            "options of version 1, which acme-ffn 2.0 fails to migrate (AssertionError: ",
        ),
        ("class Other:\n    def __call__(self, x): ...", "acme-ffn has no ffn 'leaky' any more."),
    ],
)
def test_options_that_cannot_be_migrated(plugins, saved, source, error):
    path, site = saved
    plugins.uninstall(site)
    entries = {"ffn.other": "acme_ffn:Other"} if "Other" in source else ENTRIES
    plugins.install("acme-ffn", entries, source, version="2.0")
    with pytest.raises(CheckpointError, match=re.escape(error)) as refused:
        load_model(path)
    assert 'pip install "acme-ffn==1.3"' in str(refused.value)


@pytest.mark.filterwarnings("ignore::lmx_core.errors.LmxWarning")
def test_options_of_a_newer_version_are_refused(plugins, saved):
    path, site = saved
    plugins.uninstall(site)
    plugins.install("acme-ffn", ENTRIES, LEAKY_2, version="2.0")
    save_model(load_model(path), path)
    plugins.uninstall(plugins.sites[0])
    plugins.install("acme-ffn", ENTRIES, LEAKY, version="1.3")
    with pytest.raises(CheckpointError, match=r'reads version 1. pip install --upgrade "acme-ffn>=2.0"'):
        load_model(path)


def test_a_component_of_the_session_is_asked_for(plugins, tmp_path):
    """What a program registered itself cannot be installed; a package may offer it by now."""
    ffn_registry.register("mine")(ffn_registry.get("standard"))
    try:
        save_model(built(spec("mine")), tmp_path)
    finally:
        ffn_registry.unregister("mine")
    assert requirements(tmp_path) == ["lmx-core==0.1.0"]
    with pytest.raises(LmxError, match="ffn 'mine' was registered by the program that saved it"):
        load_model(tmp_path)
    plugins.install("acme-mine", {"ffn.mine": "lmx_core.components.feedforward:StandardFFN"})
    with pytest.warns(LmxWarning, match="saved with session 0, read with acme-mine 1.0"):
        load_model(tmp_path)


def test_a_failed_save_leaves_the_model_before(tmp_path):
    """Nothing is written before all of it can be."""
    before = LanguageModel(make_config("llama", size="tiny"))
    save_model(before, tmp_path)
    ffn_registry.register("mine")(ffn_registry.get("standard"))
    other = built(spec("mine"))
    ffn_registry.unregister("mine")
    with pytest.raises(UnknownComponentError):
        save_model(other, tmp_path)
    assert load_model(tmp_path).config == before.config
    assert sorted(file.name for file in tmp_path.iterdir()) == ["config.json", "model.safetensors"]


@pytest.mark.filterwarnings("ignore::lmx_core.errors.LmxWarning")
def test_a_migration_that_exits_is_an_error(plugins, saved):
    path, site = saved
    plugins.uninstall(site)
    plugins.install("acme-ffn", ENTRIES, LEAKY_2.replace("assert version == 1", "raise SystemExit(0)"), version="2.0")
    with pytest.raises(CheckpointError, match=r"fails to migrate \(SystemExit: 0\)"):
        load_model(path)


OUTER = """
import attrs
from mlx import nn
from lmx_core import ComponentSpec, build
from lmx_core.config import slot

@attrs.frozen(kw_only=True)
class OuterOptions:
    inner: ComponentSpec = slot("ffn", "leaky")

class Outer(nn.Module):
    Options = OuterOptions

    def __init__(self, config, options):
        super().__init__()
        self.inner = build("ffn", options.inner, config)

    def __call__(self, x):
        return self.inner(x)
"""


@pytest.mark.filterwarnings("ignore::lmx_core.errors.LmxWarning")
def test_parts_are_remembered_and_migrated_too(plugins, tmp_path):
    """Also where only the options of a part are given, and its name is the default."""
    site = plugins.install("acme-ffn", ENTRIES, LEAKY, version="1.3")
    plugins.install("acme-outer", {"ffn.outer": "acme_outer:Outer"}, OUTER)
    save_model(built(spec("outer", inner={"slope": 0.2})), tmp_path)
    assert requirements(tmp_path) == ["lmx-core==0.1.0", "acme-ffn==1.3", "acme-outer==1.0"]
    plugins.uninstall(site)
    with pytest.raises(UnknownComponentError, match="acme-ffn provides it: pip install acme-ffn"):
        load_model(tmp_path)
    plugins.install("acme-ffn", ENTRIES, LEAKY_2, version="2.0")
    assert load_model(tmp_path).config.block.ffn == spec("outer", inner={"name": "leaky", "negative_slope": 0.2})


def test_a_part_that_is_a_default_stays_unsaid(plugins, tmp_path):
    """What nothing was migrated in is loaded as it was saved."""
    plugins.install("acme-ffn", ENTRIES, LEAKY)
    plugins.install("acme-outer", {"ffn.outer": "acme_outer:Outer"}, OUTER)
    save_model(built(spec("outer")), tmp_path)
    assert load_model(tmp_path).config.block.ffn == spec("outer")


@pytest.mark.filterwarnings("ignore::lmx_core.errors.LmxWarning")
def test_a_run_is_resumed_after_an_upgrade_that_was_cut_short(plugins, tmp_path, monkeypatch):
    """The options of a run are those of its last checkpoint: what nobody has saved is not migrated a second time."""
    from lmx_core.train import main

    monkeypatch.chdir(tmp_path)
    site = plugins.install("acme-ffn", ENTRIES, LEAKY, version="1.3")
    (tmp_path / "text.txt").write_text("to be or not to be " * 300)
    (tmp_path / "tiny.toml").write_text(
        "[model]\nfactory = 'llama'\nsize = 'tiny'\n[data.dataset]\nname = 'text'\npaths = ['text.txt']\n"
        "[train]\nmax_steps = 2\nseq_len = 8\nbatch_size = 1\ncompile = false\nsample_tokens = 0\n"
    )
    config = (tmp_path / "tiny.toml").read_text().replace("factory = 'llama'\nsize = 'tiny'", "n_layers = 1")
    (tmp_path / "tiny.toml").write_text(
        f"{config}[model.block]\nd_model = 16\nffn = {{ name = 'leaky', slope = 0.3 }}\n"
    )
    run = main.started(tmp_path / "tiny.toml", [], None, False)
    run.run()
    plugins.uninstall(site)
    plugins.install("acme-ffn", ENTRIES, LEAKY_2, version="2.0")
    for _ in range(2):  # the first is cut short before its first checkpoint
        job = main.resumed(run.path, ["train.max_steps=4"])
        job.directory.on_train_begin(job.trainer)
    assert job.run()["step"] == 4
    assert main.runs.read_run(run.path).model.block.ffn == spec("leaky", negative_slope=0.3)
