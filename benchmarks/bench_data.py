"""Text to packed rows of tokens: `HFDataset` beside a plain loop of `datasets` and `tokenizers`, and what memory it takes.

Pieces of Python's standard library are written as jsonl; a byte-level vocabulary of 4096 is trained on some of them. Both
sides stream the same file, encode 1000 rows at once, end each with one token, and cut rows of 1024. Each round is a process
of its own, which begins to count once its libraries are imported; rounds alternate. The medians are compared, and the best
rounds and the seconds of CPU, which other load disturbs less. The plain loop keeps neither a position nor the borders of
documents. Then `HFDataset` streams a long file, and its resident memory is looked at on the way.

    python -P benchmarks/bench_data.py [--size 50] [--long 1000] [--rounds 5] [--json]
"""

import argparse
import json
import os
import random
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from statistics import median

PLAIN = """
import numpy as np
from datasets import load_dataset
from tokenizers import Tokenizer

def rows(file, folder):
    tokenizer = Tokenizer.from_file(folder + "/tokenizer.json")
    end, kept = tokenizer.token_to_id("<|endoftext|>"), []
    for batch in load_dataset("json", data_files=file, split="train", streaming=True).iter(batch_size=1000):
        for encoded in getattr(tokenizer, METHOD)(batch["text"], add_special_tokens=False):
            kept.extend(encoded.ids)
            kept.append(end)
        full = len(kept) // 1024 * 1024
        yield from np.array(kept[:full], np.int32).reshape(-1, 1024)
        kept = kept[full:]
"""
SIDES = {
    "lmx": """
import datasets, numpy, tokenizers
from lmx_hf import HFDataset, HFDatasetOptions, HFTokenizer

def rows(file, folder):
    dataset = HFDataset(HFDatasetOptions(path="json", data_files=file, validation_fraction=0.0))
    for row in dataset.packed(HFTokenizer.read(folder), 1024):
        yield row.tokens
""",
    "plain loop, encode_batch": PLAIN.replace("METHOD", '"encode_batch"'),
    "plain loop, encode_batch_fast": PLAIN.replace("METHOD", '"encode_batch_fast"'),
}
CHILD = """
import json, sys, time

def resident(what):
    return int(next(line for line in open("/proc/self/status") if line.startswith(what)).split()[1]) / 1024

before, began, used, tokens, memory, every = (
    resident("VmRSS"), time.perf_counter(), time.process_time(), 0, [], int(sys.argv[3])
)
for row in rows(*sys.argv[1:3]):
    tokens += len(row)
    if every and tokens // every > len(memory):
        memory.append(resident("VmRSS"))
seconds, used = time.perf_counter() - began, time.process_time() - used
numbers = {"tokens": tokens, "seconds": seconds, "cpu": used, "before": before, "peak": resident("VmHWM")}
print(json.dumps({**numbers, "memory": memory}))
"""


def library() -> str:
    """The sources of the standard library, up to 20 MB."""
    files = sorted(Path(sysconfig.get_path("stdlib")).rglob("*.py"))
    return "\n".join(file.read_text(encoding="utf-8", errors="ignore") for file in files)[:20_000_000]


def written(path: Path, text: str, size: int) -> None:
    """A jsonl of so many bytes: pieces of the text, 200 to 6000 characters long."""
    draw = random.Random(0)
    with path.open("w", encoding="utf-8") as file:
        while file.tell() < size:
            starts = [draw.randrange(len(text)) for _ in range(1000)]
            file.writelines(json.dumps({"text": text[i : i + draw.randint(200, 6000)]}) + "\n" for i in starts)


def tokenizer(folder: Path, text: str) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet, special = pre_tokenizers.ByteLevel.alphabet(), ["<|endoftext|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=4096, initial_alphabet=alphabet, special_tokens=special, show_progress=False
    )
    made.train_from_iterator([text[i : i + 5000] for i in range(0, 2_000_000, 5000)], trainer)
    folder.mkdir()
    made.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"eos_token": "<|endoftext|>"}')


def measured(side: str, file: Path, folder: Path, every: int = 0) -> dict:
    command = [sys.executable, "-P", "-c", SIDES[side] + CHILD, str(file), str(folder), str(every)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "true"}
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=50, help="MB of text that both sides read.")
    parser.add_argument(
        "--long", type=int, default=1000, help="MB of the file whose reading is watched; 0 leaves it out."
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        found = compared(Path(name), chosen.size, chosen.long, chosen.rounds)
    if chosen.json:
        print(json.dumps(found, indent=2))
        return
    for side in SIDES:
        (typical, ratio), (best, of_best) = (
            (found[key][side], found[key]["lmx"] / found[key][side]) for key in ("tokens/s", "best tokens/s")
        )
        print(
            f"{side:30} {typical:10,.0f} tokens/s, lmx is {ratio:.2f}x   best {best:10,.0f}, {of_best:.2f}x   "
            f"{found['CPU s'][side]:.2f} s of CPU"
        )
    if chosen.long:
        print(f"resident after about each 100 of {chosen.long} MB: {found['MiB']} MiB, at most {found['peak MiB']}")
        print(f"before the first row: {found['before MiB']} MiB")


def compared(folder: Path, size: int, long: int, rounds: int) -> dict:
    text = library()
    tokenizer(folder / "model", text)
    written(folder / "short.jsonl", text, size * 1_000_000)
    runs = {side: [] for side in SIDES}
    for _ in range(rounds):
        for side, results in runs.items():
            results.append(measured(side, folder / "short.jsonl", folder / "model"))
    tokens = {run["tokens"] for results in runs.values() for run in results}
    assert len(tokens) == 1, tokens  # all read the same
    speeds = {side: [each["tokens"] / each["seconds"] for each in all_] for side, all_ in runs.items()}
    found = {
        name: {side: choose(each) for side, each in speeds.items()}
        for name, choose in (("tokens/s", median), ("best tokens/s", max))
    }
    found["CPU s"] = {side: median(each["cpu"] for each in all_) for side, all_ in runs.items()}
    if long:
        written(folder / "long.jsonl", text, long * 1_000_000)
        every = tokens.pop() * 100_000_000 // (folder / "short.jsonl").stat().st_size
        watched = measured("lmx", folder / "long.jsonl", folder / "model", every)
        found |= {"MiB": [round(each) for each in watched["memory"]], "peak MiB": round(watched["peak"])}
        found |= {"before MiB": round(watched["before"])}
    return found


if __name__ == "__main__":
    main()
