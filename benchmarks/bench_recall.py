"""Which mixers with a state learn to recall: multi-query associative recall (MQAR, arXiv:2312.04927).

A text of 64 tokens begins with 4 pairs of a key and a value; later each key comes again, once, at a random place among
random tokens, and the model says its value there. 20,000 examples, over and over until 99 % of other examples are right or
the epochs are spent. `python bench_recall.py [SEEDS]`
"""

import sys
import time

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim

from lmx_core import BlockConfig, LanguageModel, ModelConfig, spec

VOCAB, LENGTH, PAIRS, TRAIN, TEST = 128, 64, 4, 20_000, 2_000
BATCH, EPOCHS, RATE, ENOUGH = 64, 6, 3e-3, 0.99
MIXERS = {
    "gated_deltanet": "gated_deltanet",
    "linear_attention": "linear_attention",
    "linear_attention, convolution of 4": spec("linear_attention", conv_size=4),
}


def examples(n, seed):
    """Tokens, where the keys come again, and their values."""
    keys = iter(mx.random.split(mx.random.key(seed), 4))
    shuffled = mx.argsort(mx.random.uniform(shape=(n, VOCAB // 2), key=next(keys)), axis=1)[:, :PAIRS]
    values = mx.random.randint(VOCAB // 2, VOCAB, (n, PAIRS), key=next(keys))
    places = mx.argsort(mx.random.uniform(shape=(n, LENGTH - 2 * PAIRS), key=next(keys)), axis=1)[:, :PAIRS] + 2 * PAIRS
    pairs = mx.stack([shuffled, values], axis=-1).reshape(n, 2 * PAIRS)
    filling = mx.random.randint(
        VOCAB // 2, VOCAB, (n, LENGTH - 2 * PAIRS), key=next(keys)
    )  # no key that was not asked for
    tokens = mx.put_along_axis(mx.concatenate([pairs, filling], axis=1), places, shuffled, axis=1)
    return tokens, places, values


def model_of(mixer):
    block = BlockConfig(
        attention=mixer, position="none", norm="rms_norm", ffn="none", d_model=64, n_heads=2, head_dim=32, bias=False
    )
    return LanguageModel(ModelConfig(block=block, n_layers=2, vocab_size=VOCAB))


def answers(model, tokens, places):
    logits = model(tokens)[0]
    return mx.take_along_axis(logits, mx.broadcast_to(places[..., None], (*places.shape, VOCAB)), axis=1)


def accuracy(model, data):
    right = [
        (answers(model, *(part[i : i + 500] for part in data[:2])).argmax(-1) == data[2][i : i + 500]).mean().item()
        for i in range(0, TEST, 500)
    ]
    return sum(right) / len(right)


def learned(mixer, seed):
    """Accuracy on examples that were not trained on, and after how many epochs."""
    mx.random.seed(seed)
    model, train, test = model_of(mixer), examples(TRAIN, 2 * seed), examples(TEST, 2 * seed + 1)
    steps = EPOCHS * (TRAIN // BATCH)
    rate = optim.join_schedules([optim.linear_schedule(0, RATE, 100), optim.cosine_decay(RATE, steps - 100)], [100])
    optimizer = optim.AdamW(rate, weight_decay=0.1)

    def loss(tokens, places, values):
        return nn.losses.cross_entropy(answers(model, tokens, places), values, reduction="mean")

    def step(*batch):
        value, gradients = nn.value_and_grad(model, loss)(*batch)
        gradients, _ = optim.clip_grad_norm(gradients, 1.0)
        optimizer.update(model, gradients)
        return value

    for epoch in range(1, EPOCHS + 1):
        order = mx.random.permutation(TRAIN)
        for i in range(0, TRAIN - BATCH + 1, BATCH):
            value = step(*(part[order[i : i + BATCH]] for part in train))
            mx.eval(value, model.state, optimizer.state)
        right = accuracy(model, test)
        print(
            f"    seed {seed}, epoch {epoch}: loss {value.item():.3f}, accuracy {right:.3f}",
            file=sys.stderr,
            flush=True,
        )
        if right >= ENOUGH:
            break
    return right, epoch


def main(seeds, mixers):
    for name in mixers:
        parameters = model_of(MIXERS[name]).count_parameters()
        for seed in range(seeds):
            started = time.perf_counter()
            right, epoch = learned(MIXERS[name], seed)
            took = time.perf_counter() - started
            print(
                f"{name:36} {parameters:,} parameters, seed {seed}: {right:.3f} after {epoch} epochs, {took:.0f} s",
                flush=True,
            )


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else 3, sys.argv[2:] or list(MIXERS))
