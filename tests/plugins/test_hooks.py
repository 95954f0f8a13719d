"""Hooks: everyone reacts, one that fails is named and takes nothing down, and none is called inside a forward pass."""

import warnings

import mlx.core as mx
import pytest

from lmx_core import LanguageModel, StopRun, generate, hooks, make_config
from lmx_core.errors import CheckpointError, LmxWarning, UnknownComponentError
from lmx_core.opening import open_model
from lmx_core.plugins import manager
from lmx_core.registry import registry
from lmx_core.train.config import run_config
from lmx_core.train.main import Job
from lmx_core.train.recipes import LanguageModelling

RECORDS = """
from lmx_core import hookimpl

calls = []

@hookimpl
def lmx_model_built(model):
    calls.append(("built", model.config.n_layers))

@hookimpl
def lmx_train_start(trainer):
    calls.append(("start", trainer.step))

@hookimpl
def lmx_train_step(metrics):
    calls.append(("step", metrics["step"]))

@hookimpl
def lmx_train_end(trainer, summary):
    calls.append(("end", summary["step"]))

@hookimpl
def lmx_missing(kind, name):
    return "acme-big" if name == "big" else None

@hookimpl
def lmx_report_header():
    return ["logs in the cloud", "two lines"]
"""
OPENS = """
from functools import partial
from lmx_core import LanguageModel, hookimpl, make_config
from lmx_core.errors import CheckpointError
from lmx_core.opening import Opened

@hookimpl
def lmx_opener(place):
    owner, _, name = place.partition(":")
    return partial(read, name) if owner == "acme" else None

def read(name):
    if name != "small":
        raise CheckpointError(f"acme has no {name} one")
    return Opened(model=LanguageModel(make_config("llama", size="tiny")))
"""
FAILS = """
from lmx_core import hookimpl

calls = []

@hookimpl
def lmx_train_step(trainer, metrics):
    calls.append(metrics["step"])
    {statement}
"""


def calls(module):
    return __import__(module).calls


@pytest.fixture
def job(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("to be or not to be, that is the question. " * 200)
    table = {
        "model": {"factory": "llama", "size": "tiny"},
        "data": {"dataset": {"name": "text", "paths": [str(text)]}},
        "train": {"max_steps": 3, "seq_len": 16, "batch_size": 2, "compile": False, "sample_tokens": 0},
    }

    def make():
        config = run_config(table, "it")
        recipe = LanguageModelling(config)
        job = Job(config, recipe, recipe.read(None))
        run = tmp_path / "run"
        run.mkdir()
        job.keep_in(run)
        return job

    return make


def test_hooks_are_called_in_their_order(plugins, job):
    plugins.install("acme-log", {"hooks": "acme_log"}, RECORDS)
    job().run()
    assert calls("acme_log") == [("built", 2), ("start", 0), ("step", 1), ("step", 2), ("step", 3), ("end", 3)]


def test_a_plugin_opens_what_lmx_did_not_write(plugins, tmp_path):
    """Its errors are the user's to see, and the hook is asked again."""
    plugins.install("acme-open", {"hooks": "acme_open"}, OPENS)
    assert open_model("acme:small").model.config.n_layers == 2
    with pytest.raises(CheckpointError, match="acme has no large one"):
        open_model("acme:large")
    assert open_model("acme:small").tokenizer is None
    with pytest.raises(CheckpointError, match="other:small is no model of lmx"):
        open_model("other:small")


def test_a_hook_that_raises_is_named_and_training_goes_on(plugins, job):
    """It is not called again; the hooks of others are."""
    plugins.install("acme-bad", {"hooks": "acme_bad"}, FAILS.format(statement="raise SystemExit('no')"), version="2.1")
    plugins.install("acme-log", {"hooks": "acme_log"}, RECORDS)
    with pytest.warns(LmxWarning) as told:
        summary = job().run()
    assert [str(each.message) for each in told] == [
        "lmx_train_step of acme-bad 2.1 raised SystemExit: no. It is not called again."
    ]
    assert summary["step"] == 3
    assert calls("acme_bad") == [1]
    assert ("step", 3) in calls("acme_log")


def test_a_hook_may_end_the_run_by_saying_so(plugins, job):
    statement = "from lmx_core import StopRun; raise StopRun('the disk of the tracker is full')"
    plugins.install("acme-bad", {"hooks": "acme_bad"}, FAILS.format(statement=statement))
    with pytest.raises(StopRun, match="acme-bad 1.0 ended this: the disk of the tracker is full"):
        job().run()


def test_a_hook_may_stop_training_with_a_checkpoint(plugins, job):
    plugins.install("acme-bad", {"hooks": "acme_bad"}, FAILS.format(statement="trainer.stop('enough')"))
    running = job()
    summary = running.run()
    assert (summary["step"], summary["stopped"]) == (1, "enough")
    assert list(running.path.glob("checkpoints/step-*"))


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import nosuchlib", "ModuleNotFoundError: No module named 'nosuchlib'"),
        (
            RECORDS.replace("lmx_train_step", "lmx_train_stop"),
            "there is no hook lmx_train_stop. Did you mean 'lmx_train_ste",
        ),
        (RECORDS.replace("lmx_train_step(metrics)", "lmx_train_step(metric)"), "'metric'"),
    ],
)
def test_hooks_that_cannot_be_loaded_are_named(plugins, source, reason):
    plugins.install("acme-log", {"hooks": "acme_log", "ffn.own": "acme_log:Own"}, source)
    with pytest.warns(LmxWarning, match="hooks of acme-log 1.0 are not called") as told:
        LanguageModel(make_config("llama", size="tiny"))
    assert reason in str(told[0].message)
    (problem,) = hooks.problems()
    assert reason in str(problem)
    assert "acme-log.hooks" not in dict(manager().list_name_plugin())
    with warnings.catch_warnings(record=True) as again:
        LanguageModel(make_config("llama", size="tiny"))
    assert again == []  # said once


def test_a_blocked_distribution_has_no_hooks(plugins, monkeypatch):
    plugins.install("acme-log", {"hooks": "acme_log"}, "raise SystemExit")
    monkeypatch.setenv("LMX_DISABLE", "acme-log")
    plugins.forget()
    LanguageModel(make_config("llama", size="tiny"))
    assert hooks.problems() == []


def test_hooks_answer(plugins):
    plugins.install("acme-log", {"hooks": "acme_log"}, RECORDS)
    plugins.install(
        "acme-other", {"hooks": "acme_other"}, RECORDS.replace('["logs in the cloud", "two lines"]', '"one line"')
    )
    assert hooks.report_header() == ["logs in the cloud", "two lines", "one line"]
    assert hooks.missing("ffn", "small") is None
    with pytest.raises(UnknownComponentError, match="no ffn named 'big'. acme-big provides it: pip install acme-big"):
        registry("ffn").get("big")


@pytest.mark.parametrize(
    "statement",
    [
        "metrics.clear()",
        "class E(BaseException): ...\n    raise E",
        "class E(Exception):\n        def __str__(self): return 1\n    raise E",
        "print('no JSON')",
    ],
)
@pytest.mark.filterwarnings("ignore::lmx_core.errors.LmxWarning")
def test_whatever_a_hook_does_training_is_the_same(plugins, job, statement, capsys):
    plugins.install("acme-bad", {"hooks": "acme_bad"}, FAILS.format(statement=statement))
    running = job()
    summary = running.run()
    assert (summary["step"], summary["stopped"]) == (3, None)
    assert summary["train_loss"] > 0
    assert (running.path / "summary.json").exists()
    assert "no JSON" not in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore::lmx_core.errors.LmxWarning")
@pytest.mark.parametrize("change", ["summary.clear()", "summary['where'] = print"])
def test_a_summary_is_nobody_elses(plugins, job, change):
    source = f"from lmx_core import hookimpl\n@hookimpl\ndef lmx_train_end(summary):\n    {change}\n"
    plugins.install("acme-bad", {"hooks": "acme_bad"}, source)
    assert job().run()["step"] == 3


@pytest.mark.parametrize("answer", ["return 7", "return [1]", "yield 1 / 0"])
def test_a_header_that_is_none(plugins, answer):
    source = f"from lmx_core import hookimpl\n@hookimpl\ndef lmx_report_header():\n    {answer}\n"
    plugins.install("acme-bad", {"hooks": "acme_bad"}, source)
    with pytest.warns(LmxWarning, match="lmx_report_header of acme-bad 1.0 raised"):
        assert hooks.report_header() == []
    (problem,) = hooks.problems()
    assert (problem.dist, problem.version) == ("acme-bad", "1.0")


def test_where_warnings_are_errors_a_hook_ends_nothing(plugins, job, capsys):
    plugins.install("acme-bad", {"hooks": "acme_bad"}, FAILS.format(statement="1 / 0"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert job().run()["step"] == 3
    assert "Warning: lmx_train_step of acme-bad 1.0 raised ZeroDivisionError" in capsys.readouterr().err


def test_a_hook_may_have_another_name(plugins):
    source = "from lmx_core import hookimpl\n@hookimpl(specname='lmx_report_header')\ndef mine():\n    return 'hello'\n"
    plugins.install("acme-log", {"hooks": "acme_log"}, source)
    assert hooks.report_header() == ["hello"]


def test_hooks_may_look_something_up_while_they_are_imported(plugins):
    source = (
        "from lmx_core.registry import registry\ntry:\n    registry('logger').get('w')\nexcept LookupError:\n    pass\n"
    )
    plugins.install("acme-log", {"hooks": "acme_log"}, source + RECORDS)
    assert len(hooks.report_header()) == 2


def test_two_distributions_cannot_share_a_module_of_hooks(plugins):
    plugins.install("acme-a", {"hooks": "shared"}, RECORDS, module="shared")
    plugins.install("acme-b", {"hooks": "shared"})
    with pytest.warns(LmxWarning, match="hooks of acme-b 1.0 are not called.*its module is that of acme-a already"):
        assert len(hooks.report_header()) == 2


def test_no_hook_is_called_inside_a_forward_pass(plugins):
    """Nor by a gradient, nor by a token that is generated: only building a model tells of it."""
    plugins.install("acme-log", {"hooks": "acme_log"}, RECORDS)
    told = []
    undo = manager().add_hookcall_monitoring(lambda name, *_: told.append(name), lambda *_: None)
    model = LanguageModel(make_config("llama", size="tiny"))
    assert told == ["lmx_model_built"]
    tokens = mx.array([[1, 2, 3]])
    mx.eval(model(tokens)[0], mx.grad(lambda x: model.layers[0](x)[0].sum())(mx.ones((1, 3, 64))))
    mx.compile(lambda x: model(x)[0])(tokens)
    generate(model, [1, 2], max_tokens=3)
    undo()
    assert told == ["lmx_model_built"]


def test_the_catalogue_is_what_our_plugins_offer():
    """Each name that an error sends people to a plugin of ours for is one of its entry points."""
    import tomllib
    from pathlib import Path

    from lmx_core.catalogue import PROVIDERS

    folder = Path(__file__).parents[2] / "plugins"
    offered = {}
    for file in folder.glob("*/pyproject.toml"):
        project = tomllib.loads(file.read_text())["project"]
        keys = project.get("entry-points", {}).get("lmx.components", {})
        if keys:  # loaders are looked up by the one who brings them
            offered[project["name"]] = {key for key in keys if key != "hooks" and not key.startswith("loader.")}
    assert {dist: set(keys) for dist, keys in PROVIDERS.items()} == offered
