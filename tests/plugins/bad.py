"""Ten distributions that are wrong in ten ways: `python -P bad.py install | prove | uninstall SITE`."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

FFN = "class FFN:\n    def __init__(self, config): ...\n    def __call__(self, x): ...\n"
BAD = {
    "bad-import": ({"ffn.bad_import": "bad_import:FFN"}, "import nosuchlib"),
    "bad-syntax": ({"ffn.bad_syntax": "bad_syntax:FFN"}, "def broken(:"),
    "bad-exit": ({"ffn.bad_exit": "bad_exit:FFN"}, "raise SystemExit(3)"),
    "bad-attribute": ({"ffn.bad_attribute": "bad_attribute:NoSuch"}, FFN),
    "bad-class": ({"ffn.bad_class": "bad_class:FFN"}, "FFN = 7"),
    "bad-entry": ({"bad entry": "bad_entry:FFN"}, FFN),
    "bad-protocol": ({"attention.bad_protocol": "bad_protocol:FFN"}, FFN),
    "bad-clash-a": ({"ffn.bad_clash": "bad_clash_a:FFN"}, FFN),
    "bad-clash-b": ({"ffn.bad_clash": "bad_clash_b:FFN"}, FFN),
    "bad-twice": ({"ffn.bad_twice": "bad_twice:FFN"}, FFN),
}
EXPLAINED = {
    "bad-import": "ModuleNotFoundError: No module named 'nosuchlib'",
    "bad-syntax": "SyntaxError",
    "bad-exit": "SystemExit: 3",
    "bad-attribute": "has no attribute 'NoSuch'",
    "bad-class": "every ffn is a class, got int '7'",
    "bad-entry": 'entry point bad entry = "bad_entry:FFN" is not of the form',
    "bad-protocol": "FFN lacks make_cache(), which every attention has",
    "bad-clash": "bad-clash-b/bad_clash",
    "bad-empty": "its metadata directory is empty",
    "bad-twice": "installed a second time",
}
"""What the doctor says of each."""
TRAINING = """
[model]
factory = "llama"
size = "tiny"

[train]
max_steps = 2
seq_len = 16
batch_size = 2
warmup_steps = 0
eval_bytes = 200
final_eval_bytes = 400
sample_tokens = 0
"""


def _info(site: Path, name: str, version: str = "1.0") -> Path:
    return site / f"{name.replace('-', '_')}-{version}.dist-info"


def install(site: Path) -> None:
    for name, (entries, source) in BAD.items():
        versions = ("1.0", "2.0") if name == "bad-twice" else ("1.0",)
        for info in (_info(site, name, version) for version in versions):
            info.mkdir(parents=True)
            version = info.name.split("-")[1].removesuffix(".dist")
            (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
            lines = "".join(f"{key} = {target}\n" for key, target in entries.items())
            (info / "entry_points.txt").write_text(f"[lmx.components]\n{lines}")
        (site / f"{name.replace('-', '_')}.py").write_text(source)
    _info(site, "bad-empty").mkdir()


def uninstall(site: Path) -> None:
    for place in site.glob("bad_*"):
        shutil.rmtree(place) if place.is_dir() else place.unlink()


def lmx(site: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `lmx` where the site is seen."""
    environ = {**os.environ, "PYTHONPATH": str(site)}
    command = [sys.executable, "-P", "-m", "lmx_core", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environ, check=False)


def prove(site: Path) -> None:
    """`list` goes through, `doctor` explains each, and training with everything else works."""
    for arguments in (["list"], ["plugins", "list"], ["list", "ffn"]):
        listed = lmx(site, *arguments)
        assert listed.returncode == 0, listed.stderr
        assert "bad_import" in listed.stdout
    states = {row["name"]: row["state"] for row in json.loads(lmx(site, "plugins", "list", "--json").stdout)}
    assert (states["bad_clash"], states["bad entry"], states["gated"]) == ("clash", "refused", "ok"), states
    done = lmx(site, "plugins", "doctor", "--json")
    assert done.returncode == 1, done.stderr
    problems = json.loads(done.stdout)["problems"]
    for name, reason in EXPLAINED.items():
        told = [(problem, " ".join(problem.values())) for problem in problems]
        about = [problem for problem, text in told if name in text and reason in text]
        assert about, f"{name} is not explained: {json.dumps(problems, indent=1)}"
        assert all(each["file"] and each["fix"] and each["version"] for each in about), about
    shown = lmx(site, "doctor")
    assert (shown.returncode, "Traceback" in shown.stderr + shown.stdout) == (1, False), shown.stderr
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "tiny.toml")
        config.write_text(TRAINING)
        trained = lmx(site, "train", str(config), "--run-dir", str(Path(folder, "run")), "--json")
        assert trained.returncode == 0, trained.stderr
        assert json.loads(trained.stdout)["step"] == 2
    refused = lmx(site, "train", str(Path(folder, "gone.toml")))
    assert refused.returncode == 2


if __name__ == "__main__":
    verb, place = sys.argv[1:]
    {"install": install, "prove": prove, "uninstall": uninstall}[verb](Path(place))
