"""A corpus and a model small enough to train in a second."""

import pytest

TEXT = "".join(f"def f{i}(x):\n    return x * {i} + {i * i % 97}\n\n" for i in range(400))

CONFIG = """
[model]
factory = "llama"
size = "tiny"
d_model = 32
dropout = 0.1

[data]
dataset = {{ name = "text", paths = ["{folder}/corpus.txt"] }}
tokenizer = "{tokenizer}"

[train]
max_steps = 20
batch_size = 4
seq_len = 32
warmup_steps = 2
log_interval = 1
eval_interval = 7
eval_bytes = 200
final_eval_bytes = 500
checkpoint_interval = 10
sample_tokens = 12
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with a corpus and a config file in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "corpus.txt").write_text(TEXT)
    (tmp_path / "tiny.toml").write_text(CONFIG.format(folder=tmp_path, tokenizer="bytes"))
    return tmp_path


@pytest.fixture
def train(folder):
    """Run a job: `train("train.max_steps=5")`, `train(resume=path)`."""
    from lmx_core.train import main

    def run(*assignments, resume=None, run_dir=None, force=False, watchers=()):
        job = (
            main.resumed(resume, assignments)
            if resume
            else main.started(folder / "tiny.toml", assignments, run_dir, force)
        )
        return job, job.run(watchers)

    return run
