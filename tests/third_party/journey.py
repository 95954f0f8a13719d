"""What a user of three packages by another author does, with the wheels in a clean environment.

`python -P journey.py WHEELS`: installs them, trains, loads in another process, uninstalls, reads the error, does what it
says, loads again.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
NAMES = ("acme-relu2", "acme-kerple", "acme-ema")
UV = os.environ.get("UV") or shutil.which("uv") or "uv"
LOAD = """
import sys
import mlx.core as mx
from lmx_core import load_model
from lmx_core.checkpoint import model_directory
model = load_model(model_directory(sys.argv[1]))
tokens = mx.array([[1, 2, 3, 4, 5]])
cache = model.make_cache()
one, _ = model(tokens[:, :3], cache=cache)
two, _ = model(tokens[:, 3:], cache=cache)
assert mx.allclose(mx.concatenate([one, two], axis=1), model(tokens)[0], atol=1e-4).item()
print(sorted({type(part).__module__ for part in model.modules()}))
"""


def lmx(*arguments, fails=False):
    """What `lmx` printed; it must fail exactly when it is expected to."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "lmx_core", *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == (2 if fails else 0), (
        f"lmx {' '.join(arguments)}: {done.returncode}\n{done.stdout}{done.stderr}"
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.stderr if fails else done.stdout


def pip(*arguments):
    subprocess.run([UV, "pip", *arguments, "--quiet", "--no-cache", "--python", sys.executable], check=True)


def runs(config, folder, *modules):
    """Train a config, load what was saved in a process of its own, and see whose modules it is built from."""
    path = str(folder)
    lmx("train", str(config), "--run-dir", path)
    lmx("generate", path, "--prompt", "def", "--max-tokens", "4")
    loaded = subprocess.run([sys.executable, "-P", "-c", LOAD, path], capture_output=True, text=True, check=True).stdout
    assert all(module in loaded for module in modules), loaded
    return path


def main(wheels):
    for name in NAMES:
        pip("install", "--no-index", "--no-deps", "--find-links", wheels, name)
    listed = {
        (each["kind"], each["name"], each["distribution"]) for each in json.loads(lmx("plugins", "list", "--json"))
    }
    assert {
        ("ffn", "relu2", "acme-relu2"),
        ("position", "kerple", "acme-kerple"),
        ("attention", "ema", "acme-ema"),
    } <= listed
    for name in ("ffn.relu2", "position.kerple", "attention.ema"):
        lmx("plugins", "check", name)
    with tempfile.TemporaryDirectory() as folder:
        text = (HERE / "journey.toml").read_text()
        average = Path(folder, "average.toml")
        average.write_text(text.replace('"gqa"', '{ name = "ema", half_life = 4.0 }').replace('"kerple"', '"none"'))
        first = runs(HERE / "journey.toml", Path(folder, "first"), "acme_relu2", "acme_kerple")
        second = runs(average, Path(folder, "second"), "acme_relu2", "acme_ema")
        assert lmx("requirements", second).split()[1:] == ["acme-ema==0.1.0", "acme-relu2==0.1.0"]
        pip("uninstall", *NAMES)
        refused = lmx("generate", first, "--prompt", "def", fails=True)
        assert "acme-relu2 provides it: pip install acme-relu2" in refused, refused
        for run in (first, second):
            said = re.findall(r"pip (install .*)$", lmx("generate", run, "--prompt", "def", fails=True), re.M)
            pip(*said[-1].split(), "--no-index", "--no-deps", "--find-links", wheels)
            lmx("generate", run, "--prompt", "def", "--max-tokens", "4")
    print("found, checked, trained, saved, loaded, refused with the pip line, and loaded again after it")


if __name__ == "__main__":
    main(sys.argv[1])
