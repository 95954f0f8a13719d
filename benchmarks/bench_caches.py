"""What a token costs late in a sequence, and how much memory a long one takes.

Each side is a process of its own; the sides take turns, and medians of the ratios round by round are printed.
`python bench_caches.py [ROUNDS]`
"""

import json
import statistics
import subprocess
import sys
import time

MODEL = {"vocab_size": 256, "d_model": 320, "n_heads": 8, "n_kv_heads": 8, "n_layers": 8, "d_ff": 896}
WINDOW, EARLY, LATE, STEPS, LONG = 128, 100, 4000, 60, 8192
KINDS = {
    "window of 128": ("mistral", {"window": WINDOW}, None, {}),
    "llama, rotating cache of 128": ("llama", {}, "rotating", {"max_size": WINDOW, "keep": 4}),
    "llama, whole cache": ("llama", {}, None, {}),
    "llama, 8-bit cache": ("llama", {}, "quantised", {"bits": 8, "group_size": 32}),
}
"""A factory, its arguments, and a kind of cache with its options."""


def decoding(kind):
    """Milliseconds a token early and late in a sequence, and the bytes of the cache there."""
    import mlx.core as mx

    from lmx_core import LanguageModel, make_config

    factory, changes, cache_kind, options = KINDS[kind]
    model = LanguageModel(make_config(factory, **MODEL, max_seq_len=LATE + 200, **changes))
    mx.eval(model.parameters())
    found = {}
    for name, before in (("early", EARLY), ("late", LATE)):
        cache = model.make_cache(cache_kind, **options)
        for _ in range(0, before, 100):
            model.hidden(mx.zeros((1, 100), mx.int32), cache)
            mx.eval([memory.state for memory in cache])
        times = []
        for _ in range(STEPS):
            started = time.perf_counter()
            mx.eval(model(mx.zeros((1, 1), mx.int32), cache=cache, last_only=True)[0])
            times.append(time.perf_counter() - started)
        found[name] = 1000 * statistics.median(times)
        found[f"{name} bytes"] = sum(memory.nbytes for memory in cache)
    return found


def attention(side):
    """Seconds and the peak of memory, in bytes, of causal attention over a long sequence, forwards."""
    import mlx.core as mx

    from lmx_core.components import softmax

    if side == "at once":
        softmax.QUERIES = LONG
    q, k, v = (mx.random.normal((1, 8, LONG, 64), key=mx.random.key(i)) for i in range(3))
    mx.eval(q, k, v)
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    started = time.perf_counter()
    mx.eval(softmax.attend(q, k, v, 0.125, "causal"))
    return {"seconds": time.perf_counter() - started, "bytes": mx.get_peak_memory() - before}


def measured(task, side):
    command = [sys.executable, "-P", __file__, "--one", task, side]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])


def median(rounds, side, key):
    return statistics.median(each[side][key] for each in rounds)


def main(rounds):
    decoded = [{kind: measured("decoding", kind) for kind in KINDS} for _ in range(rounds)]
    print(f"one token, 10.6M llama          at {EARLY:>6}   at {LATE:>6}    ratio   cache then and now")
    for kind in KINDS:
        ratio = statistics.median(each[kind]["late"] / each[kind]["early"] for each in decoded)
        early, late = median(decoded, kind, "early"), median(decoded, kind, "late")
        sizes = [median(decoded, kind, f"{name} bytes") / 2**20 for name in ("early", "late")]
        print(f"{kind:30} {early:8.2f} ms {late:8.2f} ms {ratio:7.2f}x   {sizes[0]:.1f} and {sizes[1]:.1f} MiB")
    sides = ("in parts", "at once")
    long = [{side: measured("attention", side) for side in sides} for _ in range(rounds)]
    print(f"\ncausal attention over {LONG} tokens, 8 heads of 64, forwards")
    for side in sides:
        print(f"{side:30} {median(long, side, 'seconds'):8.2f} s   {median(long, side, 'bytes') / 2**20:8.0f} MiB")
    for key, what in (("bytes", "memory"), ("seconds", "time")):
        ratio = statistics.median(each["in parts"][key] / each["at once"][key] for each in long)
        print(f"{what} in parts, of that at once: {ratio:.2f}x")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps({"decoding": decoding, "attention": attention}[sys.argv[2]](sys.argv[3])))
    else:
        main(int(sys.argv[1]) if sys.argv[1:] else 5)
