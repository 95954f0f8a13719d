"""A layer of gated DeltaNet: training in chunks beside a loop over tokens, and decoding early and late in a text.

Each side is a process of its own; the sides take turns, and medians of the ratios round by round are printed.
`python bench_deltanet.py [ROUNDS]`
"""

import json
import statistics
import subprocess
import sys
import time

WIDTH, HEAD, KEY_HEADS, HEADS = 256, 128, 2, 4
"""An eighth of a layer of Qwen3-Next."""
LENGTH, PLACES, STEPS, PREFILL = 1024, (100, 4000, 32_000), 100, 500
SIDES = ("chunks", "loop")
MIXERS = ("gated_deltanet", "kda", "gated_linear_attention", "mha")


def layer(mixer):
    import mlx.core as mx

    from lmx_core import BlockConfig, ConfigurableBlock, spec

    attention = mixer if mixer == "mha" else spec(mixer, n_key_heads=KEY_HEADS)

    block = ConfigurableBlock(
        BlockConfig(
            attention=attention,
            position="none",
            norm="rms_norm",
            ffn="none",
            d_model=WIDTH,
            n_heads=HEADS,
            head_dim=HEAD,
            bias=False,
        )
    )
    mx.eval(block.parameters())
    return block


def training(side):
    """Seconds of a forward and backward pass of one layer, the median of three after one that is not counted, and the peak
    of memory beyond its parameters, in bytes."""
    import mlx.core as mx
    import mlx.nn as nn

    from lmx_deltanet import mixer, reference

    if side == "loop":
        mixer.linear_attention = reference.linear_attention
    block, x = layer("gated_deltanet"), mx.random.normal((1, LENGTH, WIDTH), key=mx.random.key(0))
    step = nn.value_and_grad(block, lambda x: mx.square(block(x, "causal")[0]).sum())
    mx.eval(step(x))
    mx.clear_cache()
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    times = []
    for _ in range(3):
        started = time.perf_counter()
        mx.eval(step(x))
        times.append(time.perf_counter() - started)
    return {"seconds": statistics.median(times), "bytes": mx.get_peak_memory() - before}


def decoding(name):
    """Milliseconds of one token of one layer at each place, and the bytes that it then remembers."""
    import mlx.core as mx

    block = layer(name).eval()
    cache, found = block.make_cache(), {}
    for place in PLACES:
        while cache.offset < place:
            length = min(PREFILL, place - cache.offset)
            block(mx.random.normal((1, length, WIDTH)), "causal", cache)
            mx.eval(cache.state)
        x, times = mx.random.normal((STEPS, 1, 1, WIDTH)), []
        mx.eval(x)
        for i in range(STEPS):
            started = time.perf_counter()
            mx.eval(block(x[i], None, cache)[0], cache.state)
            times.append(time.perf_counter() - started)
        found[str(place)] = 1000 * statistics.median(times)
        found[f"{place} bytes"] = cache.nbytes
    return found


def rule(length):
    """Milliseconds of the rule alone, without a gradient: lmx's and MLX's own in turn."""
    import mlx.core as mx

    import lmx_core  # with the BLAS that models have  # noqa: F401
    from lmx_deltanet import fused
    from lmx_deltanet.rule import linear_attention

    arrays = *gated(HEADS, int(length), HEAD, 0), mx.zeros((1, HEADS, HEAD, HEAD))
    mx.eval(arrays)
    times = {"lmx": [], "mx.fast": []}
    for _ in range(20_000 // (int(length) + 100)):
        for side, function in zip(times, (linear_attention, fused.gated_delta_rule), strict=True):
            started = time.perf_counter()
            mx.eval(function(*arrays))
            times[side].append(time.perf_counter() - started)
    return {side: 1000 * statistics.median(each) for side, each in times.items()}


def gated(heads, length, width, seed):
    """Queries, keys, values, decays and betas."""
    import mlx.core as mx

    keys = mx.random.split(mx.random.key(seed), 5)
    q, k, v = (mx.random.normal((1, heads, length, width), key=key) for key in keys[:3])
    q, k = (part / mx.linalg.norm(part, axis=-1, keepdims=True) for part in (q, k))
    decay = -0.01 * mx.random.uniform(shape=(1, heads, length, 1), key=keys[3])
    return q, k, v, decay, mx.random.uniform(shape=(1, heads, length), key=keys[4])


def drift():
    """By how much the state after 32,000 tokens in chunks differs from that of the loop, in parts of its largest number."""
    import mlx.core as mx

    from lmx_deltanet import reference
    from lmx_deltanet.rule import linear_attention

    chunked = looped = mx.zeros((1, 1, 64, 64))
    for i in range(PLACES[-1] // PREFILL):
        arrays = gated(1, PREFILL, 64, i)
        chunked = linear_attention(*arrays, chunked)[1]
        looped = reference.linear_attention(*arrays, looped)[1]
        mx.eval(chunked, looped)
    return {"difference": (mx.abs(chunked - looped).max() / mx.abs(looped).max()).item()}


TASKS = {"training": training, "decoding": decoding, "rule": rule, "drift": drift}


def measured(task, *arguments):
    command = [sys.executable, "-P", __file__, "--one", task, *arguments]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])


def median(rounds, side, key):
    return statistics.median(each[side][key] for each in rounds)


def main(rounds):
    trained = [{side: measured("training", side) for side in SIDES} for _ in range(rounds)]
    print(f"training one layer of gated_deltanet, d_model {WIDTH}, {HEADS} heads of {HEAD}, {LENGTH} tokens")
    for side in SIDES:
        seconds, size = median(trained, side, "seconds"), median(trained, side, "bytes")
        print(f"{side:24} {1000 * seconds:8.0f} ms {size / 2**20:8.0f} MiB")
    for key, what in (("seconds", "time"), ("bytes", "memory")):
        print(f"{what} of the loop, of that in chunks: "
              f"{statistics.median(each['loop'][key] / each['chunks'][key] for each in trained):.1f}x")  # fmt: skip
    decoded = [{name: measured("decoding", name) for name in MIXERS} for _ in range(rounds)]
    print("\none token of one layer    " + "".join(f"{f'at {place:,}':>12}" for place in PLACES) + "   cache then")
    for name in MIXERS:
        times = "".join(f"{median(decoded, name, str(place)):9.2f} ms" for place in PLACES)
        sizes = ", ".join(f"{median(decoded, name, f'{place} bytes') / 2**20:.2f}" for place in PLACES)
        print(f"{name:26}{times}   {sizes} MiB")
    alone = [{n: measured("rule", n) for n in ("1", str(LENGTH))} for _ in range(rounds)]
    print(f"\nthe rule alone, {HEADS} heads of {HEAD}    one token   {LENGTH} tokens")
    for side in ("lmx", "mx.fast"):
        print(f"{side:28}" + "".join(f"{median(alone, n, side):9.2f} ms" for n in alone[0]))
    print(
        f"\nstate after {PLACES[-1]:,} tokens, in chunks beside the loop: {measured('drift')['difference']:.1e} apart"
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(TASKS[sys.argv[2]](*sys.argv[3:])))
    else:
        main(int(sys.argv[1]) if sys.argv[1:] else 3)
