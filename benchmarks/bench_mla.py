"""Latent attention beside multi-head attention of as many parameters: a token late in a sequence, a whole sequence, memory.

One layer of d_model 1024 with 16 heads of 128 numbers, fp32. Caches are filled with random numbers, not by reading so many
tokens. Each side is a process of its own; the sides take turns, and medians are printed. `python bench_mla.py [ROUNDS]`
"""

import json
import math
import statistics
import subprocess
import sys
import time

WIDTH, HEADS, HEAD, ROPE, LONG = 1024, 16, 128, 64, 2048
FEWEST, STEPS = 4, 20
CONTEXTS = (4096, 32_768)
EQUAL, SMALLER = {"kv_lora_rank": 608}, {"kv_lora_rank": 256}
EIGHT_BITS = {"bits": 8, "group_size": 32}
SIDES = {
    "mha": ("mha", {}, None, True),
    "mla, as many parameters": ("mla", EQUAL, None, True),
    "mla, rank 256": ("mla", SMALLER, None, True),
    "mla, past expanded each time": ("mla", EQUAL, None, False),
    "mha, 8-bit cache": ("mha", {}, EIGHT_BITS, True),
    "mla, 8-bit cache": ("mla", EQUAL, EIGHT_BITS, True),
    "mla, 8-bit cache, expanded": ("mla", EQUAL, EIGHT_BITS, False),
}
"""A mixer, its options, those of a quantised cache, and whether it may absorb its maps."""
DEEPSEEK_V2 = {"n_heads": 128, "head_dim": 128, "d_model": 128}
"""Its caches: they do not depend on d_model, which is small so that the maps fit."""


def layer(attention, options, **numbers):
    """A mixer in a block that owns a rope, and the block's parameters of attention."""
    import mlx.core as mx
    from mlx.utils import tree_flatten

    from lmx_core import BlockConfig, ConfigurableBlock, spec

    numbers = {"d_model": WIDTH, "n_heads": HEADS, "head_dim": HEAD, **numbers}
    if attention == "mla":
        options = {"rope_head_dim": ROPE, "nope_head_dim": HEAD, "v_head_dim": HEAD, **options}
    block = ConfigurableBlock(
        BlockConfig(
            attention=spec(attention, **options),
            ffn="none",
            norm="none",
            position="rope",
            bias=False,
            max_seq_len=max(CONTEXTS) + 100,
            **numbers,
        )
    )
    mx.eval(block.parameters())
    return block, sum(each.size for _, each in tree_flatten(block.attention.parameters()))


def filled(block, attention, rank, tokens, quantised=None):
    """A cache with so many tokens in it."""
    import mlx.core as mx

    cache = block.make_cache("quantised", **quantised) if quantised else block.make_cache()
    heads, widths = (block.config.n_heads, (HEAD, HEAD)) if attention == "mha" else (1, (rank, ROPE))
    cache.update_and_fetch(*(mx.random.normal((1, heads, tokens, width)) for width in widths))
    mx.eval(cache.state)
    return cache


def decoding(side):
    """Milliseconds a token, bytes of the cache, and the most that is held beyond it and the parameters."""
    import mlx.core as mx

    attention, options, quantised, absorbs = SIDES[side]
    block, parameters = layer(attention, options)
    if not absorbs:
        block.attention.absorbs = lambda new, total: False
    found = {"parameters": parameters}
    for context in CONTEXTS:
        cache = filled(block, attention, options.get("kv_lora_rank"), context, quantised)
        times = []
        while len(times) < FEWEST or (len(times) < STEPS and sum(times) < 1):
            x = mx.random.normal((1, 1, WIDTH))
            mx.eval(x)
            if len(times) == 1:  # the buffer has grown by now
                held = mx.get_active_memory()
                mx.reset_peak_memory()
            started = time.perf_counter()
            mx.eval(block(x, None, cache)[0])
            times.append(time.perf_counter() - started)
        found[f"{context} ms"] = 1000 * statistics.median(times[1:])
        found[f"{context} bytes"] = cache.nbytes
        found[f"{context} beyond"] = mx.get_peak_memory() - held
    return found


def whole(side):
    """Seconds of a causal sequence, forwards and with gradients, and the peak of memory beyond the parameters."""
    import mlx.core as mx
    from mlx import nn

    attention, options, _, _ = SIDES[side]
    block, _ = layer(attention, options)
    x = mx.random.normal((1, LONG, WIDTH))
    mx.eval(x)
    gradients = nn.value_and_grad(block, lambda x: block(x, "causal")[0].square().sum())
    found = {}
    for name, run in (("forward", lambda: block(x, "causal")[0]), ("gradients", lambda: gradients(x))):
        held = mx.get_active_memory()
        mx.reset_peak_memory()
        mx.eval(run())
        found[f"{name} bytes"] = mx.get_peak_memory() - held
        started = time.perf_counter()  # the second one, whose memory is there
        mx.eval(run())
        found[name] = time.perf_counter() - started
    return found


def bytes_of_deepseek_v2(side):
    """Bytes that 1024 tokens take in one layer's cache."""
    block, _ = layer(side, {"kv_lora_rank": 512} if side == "mla" else {}, **DEEPSEEK_V2)
    return {"bytes": filled(block, side, 512, 1024).nbytes}


TASKS = {"decoding": decoding, "whole": whole, "bytes": bytes_of_deepseek_v2}


def measured(task, side):
    command = [sys.executable, "-P", __file__, "--one", task, side]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])


def median(rounds, side, key):
    return statistics.median(each[side][key] for each in rounds)


def main(rounds):
    decoded = [{side: measured("decoding", side) for side in SIDES} for _ in range(rounds)]
    print(f"{'one token, one layer':30} parameters" + "".join(f"{f'at {n}':>35}" for n in CONTEXTS))
    for side in SIDES:
        line = f"{side:30} {median(decoded, side, 'parameters') / 1e6:8.2f} M"
        for n in CONTEXTS:
            ratio = statistics.median(each[side][f"{n} ms"] / each["mha"][f"{n} ms"] for each in decoded)
            cache, beyond = (median(decoded, side, f"{n} {what}") / 2**20 for what in ("bytes", "beyond"))
            line += f"{median(decoded, side, f'{n} ms'):8.2f} ms {ratio:5.2f}x {cache:5.0f}+{beyond:4.0f} MiB"
        print(line)
    sides = ("mha", "mla, as many parameters")
    wholes = [{side: measured("whole", side) for side in sides} for _ in range(rounds)]
    print(f"\na causal sequence of {LONG} tokens")
    for side in sides:
        parts = (
            f"{name} {median(wholes, side, name):6.2f} s {median(wholes, side, f'{name} bytes') / 2**20:6.0f} MiB"
            for name in ("forward", "gradients")
        )
        print(f"{side:30} {'   '.join(parts)}")
    mha, mla = (measured("bytes", side)["bytes"] / 1024 / 4 for side in ("mha", "mla"))
    print(f"\nDeepSeek-V2, numbers a token and layer, measured: mha {mha:.0f}, mla {mla:.0f}, {mha / mla:.1f}x")
    assert math.isclose(mha / mla, 2 * 128 * 128 / (512 + 64)), "computed otherwise"


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(TASKS[sys.argv[2]](sys.argv[3])))
    else:
        main(int(sys.argv[1]) if sys.argv[1:] else 3)
