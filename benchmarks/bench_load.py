"""Reading a checkpoint: time and peak memory of lmx-hf's `load_from_hf` and of mlx-lm's `load_model`, in one run.

A random llama of about 1 GB in bfloat16 is written once, in shards. Each program reads it in a process of its own, whose
peak of resident memory is taken less that after it has read a small one. Rounds alternate.

    python -P benchmarks/bench_load.py [--layers 8] [--rounds 3] [--fused]
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

CHILD = """
import json, sys, time
from pathlib import Path
import mlx.core as mx
if sys.argv[1] == "lmx":
    from lmx_hf import load_from_hf as load
else:
    from mlx_lm.utils import load_model as load

def read(folder):
    model = load(Path(folder))[0]
    mx.eval(model.parameters())
    return model

def peak():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) * 1024

read(sys.argv[2])  # imports what it needs
before, start = peak(), time.perf_counter()
model = read(sys.argv[3])
print(json.dumps({"seconds": time.perf_counter() - start, "bytes": peak() - before}))
"""


def written(folder: Path, layers: int, fused: bool) -> int:
    """A random checkpoint, and its bytes; with no layers a small one."""
    import mlx.core as mx
    from mlx.utils import tree_map

    from lmx_core import LanguageModel, make_config
    from lmx_hf.save import export

    name = "phi3" if fused else "llama"
    sizes = {"d_model": 2048, "n_heads": 16, "n_kv_heads": 8, "d_ff": 5632, "n_layers": layers, "vocab_size": 32_000}
    model = LanguageModel(make_config(name, **sizes) if layers else make_config(name, size="tiny"))
    model.update(tree_map(lambda weight: mx.random.normal(weight.shape).astype(mx.bfloat16), model.parameters()))
    export(model, folder, family=name, shard_size=2**28)
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def measured(program: str, small: Path, folder: Path) -> dict[str, float]:
    command = [sys.executable, "-P", "-c", CHILD, program, str(small), str(folder)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--fused", action="store_true", help="Phi-3: queries, keys and values in one tensor.")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        small, large = Path(folder, "small"), Path(folder, "large")
        written(small, 0, chosen.fused)
        size = written(large, chosen.layers, chosen.fused)
        print(f"{size / 1e9:.2f} GB in bfloat16{', fused' if chosen.fused else ''}")
        found: dict[str, list[dict[str, float]]] = {"lmx": [], "mlx-lm": []}
        for _ in range(chosen.rounds):
            for program, results in found.items():
                results.append(measured(program, small, large))
    times, peaks = (
        {name: median(each[key] for each in all_) for name, all_ in found.items()} for key in ("seconds", "bytes")
    )
    for name in found:
        print(
            f"{name:8} {times[name]:6.2f} s   peak {peaks[name] / 1e9:5.2f} GB = {peaks[name] / size:.3f} of the model"
        )
    print(f"lmx / mlx-lm: time {times['lmx'] / times['mlx-lm']:.2f}, peak {peaks['lmx'] / peaks['mlx-lm']:.3f}")


if __name__ == "__main__":
    main()
