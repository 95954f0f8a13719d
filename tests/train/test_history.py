"""What run directories tell: `lmx runs` lists them, `lmx plot` compares them."""

import json
import re
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner

from lmx_core.cli import lmx
from lmx_core.errors import CheckpointError
from lmx_core.train import plot
from lmx_core.train.history import found_in, read_history
from lmx_core.train.plot import differences, smoothed


def write(folder, name, rate=0.001, losses=(3.0, 2.0, 1.5), evaluations=(2.5, 1.25), summary=None, rest=""):
    """A run directory as a run leaves it."""
    run = folder / "runs" / name
    run.mkdir(parents=True)
    (run / "config.toml").write_text(f'[train]\nlearning_rate = {rate}\n[train.optimizer]\nname = "adamw"\n')
    lines = [{"step": i + 1, "seconds": i / 2, "tokens": 100 * (i + 1), "loss": loss} for i, loss in enumerate(losses)]
    lines += [
        {"step": i + 2, "seconds": i, "tokens": 100 * (i + 2), "val_loss": loss, "val_bpb": 2 * loss, "val_bytes": 50}
        for i, loss in enumerate(evaluations)
    ]
    (run / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines) + rest)
    if summary:
        (run / "summary.json").write_text(json.dumps(summary))
    return run


def called(*arguments):
    done = CliRunner().invoke(lmx, [str(argument) for argument in arguments], catch_exceptions=False)
    return done.exit_code, done.stdout, done.stderr


def test_a_history_has_the_lines_that_a_kill_left_whole(tmp_path):
    run = read_history(write(tmp_path, "killed", rest='{"step": 4, "loss": 1.2, "sec'))
    assert (run.state, run.summary) == ("broken off", {})
    assert run.series("loss") == ([1, 2, 3], [3.0, 2.0, 1.5])
    assert run.series("val_loss", "tokens") == ([200, 300], [2.5, 1.25])
    assert (run.last("val_bpb"), run.lowest("loss"), run.last("nothing")) == (2.5, 1.5, None)
    assert run.names() == ["loss", "val_loss", "val_bpb", "val_bytes"]


@pytest.mark.parametrize(
    ("summary", "state"),
    [
        ({"step": 3, "stopped": None}, "finished"),
        ({"step": 3, "stopped": "interrupted"}, "stopped"),
        ({"step": 2, "stopped": None}, "broken off"),  # that of a run which went on
    ],
)
def test_the_state_of_a_run(tmp_path, summary, state):
    assert read_history(write(tmp_path, "run", summary=summary)).state == state


def test_a_run_that_is_written_to_is_running(train, folder):
    """As long as a process trains in it."""
    seen = []
    from lmx_core.train.trainer import Callback

    class Look(Callback):
        def on_step_end(self, trainer, metrics):
            seen.append(read_history(folder / "runs" / "tiny").state)

    train("train.max_steps=2", watchers=[Look()])
    assert seen == ["running", "running"]
    assert read_history(folder / "runs" / "tiny").state == "finished"


def test_runs_are_listed_by_when_they_were_written(tmp_path, monkeypatch):
    import os

    first, second = write(tmp_path, "b"), write(tmp_path, "a", summary={"step": 3, "stopped": None})
    os.utime(first / "metrics.jsonl", (1, 1))
    (tmp_path / "runs" / "no-run").mkdir()
    assert found_in(tmp_path / "runs") == [first, second]
    assert found_in(first) == [first]
    monkeypatch.chdir(tmp_path)
    code, out, _ = called("runs", "--json")
    rows = json.loads(out)
    assert code == 0
    assert [(row["run"], row["state"], row["loss"], row["lowest_val_loss"]) for row in rows] == [
        ("runs/b", "broken off", 1.5, 1.25),
        ("runs/a", "finished", 1.5, 1.25),
    ]
    code, out, _ = called("runs")
    assert [line.split()[0] for line in out.splitlines()] == ["RUN", "runs/b", "runs/a"]


def test_what_is_no_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match="runs is no directory. Give the folder"):
        called("runs")
    (tmp_path / "runs").mkdir()
    assert called("runs")[::2] == (0, "no runs in runs\n")
    with pytest.raises(CheckpointError, match="is no run directory: it has no config.toml"):
        read_history(tmp_path)


def test_a_page_needs_no_other_file(tmp_path, monkeypatch):
    """It has the curves, the last numbers, and the keys that differ; nothing is fetched, and names are no markup."""
    pytest.importorskip("matplotlib", reason="curves need the extra plot")
    monkeypatch.chdir(tmp_path)
    first = write(tmp_path, "a<b>", summary={"step": 3, "stopped": None})
    second = write(tmp_path, "second", rate=0.01, losses=(3.0, 2.5, 2.25))
    code, out, _ = called("plot", first, second)
    assert (code, out.split()) == (0, ["runs.png", "runs.html"])
    assert (tmp_path / "runs.png").read_bytes().startswith(b"\x89PNG")
    text = (tmp_path / "runs.html").read_text()
    assert "a<b>" not in text
    assert "a&lt;b&gt;" in text
    assert not re.search(r'(src|href)="(?!#)', text)
    assert "<script" not in text
    drawings = re.findall(r"<svg.*?</svg>", text, re.S)
    assert len(drawings) == 3  # loss, val_loss, val_bpb
    for drawing in drawings:
        ElementTree.fromstring(drawing)
    assert "<td>train.learning_rate<td>0.001<td>0.01" in text
    assert "<th>bits/byte" in text
    assert "<th>val_reward" not in text  # a column that would be empty
    assert "train.optimizer.name" not in text
    called("plot", "runs", "--out", "all.html", "--over", "seconds")
    assert "second" in (tmp_path / "all.html").read_text()


def test_a_page_of_rewards_has_their_last_number(tmp_path):
    pytest.importorskip("matplotlib", reason="curves need the extra plot")
    run = write(tmp_path, "policy")
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "seconds": 3.5, "tokens": 30, "val_reward": 0.625}\n')
    called("plot", run, "--out", tmp_path / "page.html")
    head, cells = re.search(r"<tr>(<th>run.*?)<tr>(<td>.*?)</table>", (tmp_path / "page.html").read_text()).groups()
    assert dict(zip(head.split("<th>"), cells.split("<td>"), strict=True))["val_reward"] == "0.625"


def test_runs_of_one_name_are_told_apart(tmp_path):
    """By their paths."""
    pytest.importorskip("matplotlib", reason="curves need the extra plot")
    runs = [write(tmp_path / folder, "run", rate) for folder, rate in (("a", 0.1), ("b", 0.2))]
    called("plot", *runs, "--out", tmp_path / "both.html")
    text = (tmp_path / "both.html").read_text()
    assert f"<tr><th>key<th>{runs[0]}<th>{runs[1]}<tr>" in text
    labels = [
        each.get_text() for each in plot._figure(list(map(read_history, runs)), ["loss"], "step").axes[0].legend_.texts
    ]
    assert labels == [str(run) for run in runs]


def test_curves_lie_over_what_is_asked_for(tmp_path, monkeypatch):
    """The picture has the validation once: in bits per byte where these are known."""
    pytest.importorskip("matplotlib", reason="curves need the extra plot")
    figures = []
    draw = plot._figure
    monkeypatch.setattr(plot, "_figure", lambda *given: figures.append(draw(*given)) or figures[-1])
    plot.plot_runs([read_history(write(tmp_path, "run"))], tmp_path / "curves.png", over="tokens")
    drawn = {axes.get_ylabel(): axes.lines[0].get_xydata().tolist() for axes in figures[0].axes}
    assert drawn == {
        plot.LABELS["loss"]: [[100, 3.0], [200, 2.0], [300, 1.5]],
        plot.LABELS["val_bpb"]: [[200, 5.0], [300, 2.5]],
    }


def test_plotting_refuses_what_it_cannot_draw(tmp_path):
    run = write(tmp_path, "run")
    done = CliRunner().invoke(lmx, ["plot", str(run), "--out", "curve.pdf"])
    assert "--out curve.pdf: a picture ends in .png, a page in .html" in str(done.exception)
    empty = write(tmp_path, "empty", losses=(), evaluations=())
    done = CliRunner().invoke(lmx, ["plot", str(empty)])
    assert "has no metrics yet" in str(done.exception)


def test_one_run_shows_all_of_its_config(tmp_path):
    run = read_history(write(tmp_path, "run"))
    assert differences([run]) == [["train.learning_rate", "0.001"], ["train.optimizer.name", "adamw"]]


def test_smoothing_keeps_a_constant_and_lags_little():
    assert smoothed([2.0] * 500) == pytest.approx([2.0] * 500)
    line = smoothed([float(i) for i in range(1000)])
    assert line[-1] == pytest.approx(999 - 19, abs=1)  # a mean over about 2 % of the run
    assert smoothed([5.0, 1.0])[0] == 5.0
