"""The command line as a person meets it: each command in a process of its own."""

import os
import subprocess
import sys

import pytest


@pytest.fixture
def lmx(tmp_path):
    """Run `lmx ...` in an empty directory."""

    def run(*arguments, code=0, out=False, **environ):
        command = [sys.executable, "-P", "-m", "lmx_core", *map(str, arguments)]
        inherited = {name: value for name, value in os.environ.items() if name != "UV_RUN_RECURSION_DEPTH"}
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env={**inherited, **environ})
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout if out or code == 0 else done.stderr

    return run


@pytest.fixture
def saved(tmp_path):
    """A saved model with its tokenizer."""
    from lmx_core import LanguageModel, make_config, save_model
    from lmx_core.data.tokenizers import ByteTokenizer, save_tokenizer
    from lmx_core.testing import randomise

    save_model(randomise(LanguageModel(make_config("llama", size="tiny"))), tmp_path / "model")
    save_tokenizer("bytes", ByteTokenizer(), tmp_path / "model" / "tokenizer.json")
    return tmp_path / "model"
