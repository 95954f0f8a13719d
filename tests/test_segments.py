"""Documents that are packed in a row are what each is alone."""

import copy

import attrs
import mlx.core as mx
import pytest
from mlx import nn
from mlx.utils import tree_flatten

from lmx_core import ConfigurableBlock, KVCache, LanguageModel, ModelConfig, model, spec
from lmx_core.components import reference
from lmx_core.components.attention import AttentionBase, join_heads, split_heads
from lmx_core.components.masks import Scope, View
from lmx_core.components.positions import document_lengths
from lmx_core.components.segments import Segments, keeps_apart
from lmx_core.errors import ConfigError
from lmx_core.registry import registry
from lmx_core.testing import SMALL, close, randomise

ROWS = [[66, 1, 23], [90], [13, 47, 30]]
"""Documents longer and shorter than the parts in which queries go."""
HALF = SMALL.head_dim // 2
LONGROPE = spec(
    "longrope",
    short_factor=[1.0 + 0.1 * i for i in range(HALF)],
    long_factor=[2.0 + 0.3 * i for i in range(HALF)],
    original_max_seq_len=30,
)
POSITIONS = {
    "none": spec("none"),
    "rope": spec("rope"),
    "pairs": spec("rope", interleaved=True, fraction=0.5),
    "dynamic": spec("rope", scaling=spec("dynamic", factor=4.0)),
    "longrope": spec("rope", scaling=LONGROPE),
    "yarn": spec("rope", scaling=spec("yarn", factor=4.0)),
    "learned": spec("learned"),
    "sinusoidal": spec("sinusoidal"),
    "alibi": spec("alibi", in_bfloat16=True),
    "t5": spec("t5", n_buckets=8, max_distance=20),
}
MIXERS = {
    "all": spec("gqa"),
    "window": spec("sliding_window", window=20),
    "chunks": spec("chunked", chunk_size=12),
    "capped": spec("gqa", softcap=5.0, sinks=True, query_growth=0.3, query_growth_every=7),
}
by_length = {"dynamic", "longrope"}


def numbers(rows=ROWS):
    return mx.array([[i for i, n in enumerate(row) for _ in range(n)] for row in rows])


def tokens(rows=ROWS, seed=3):
    return mx.random.randint(0, 50, (len(rows), sum(rows[0])), key=mx.random.key(seed))


def made(attention="gqa", position="rope", limit=100, **changes):
    block = attrs.evolve(SMALL, attention=attention, position=position, max_seq_len=limit)
    config = ModelConfig(**{"block": block, "vocab_size": 50, "n_layers": 2, **changes})
    return randomise(LanguageModel(config)).eval()


def alone(net, x, rows=ROWS):
    """The logits of each document by itself, put together as they were packed."""
    found = []
    for i, row in enumerate(rows):
        starts = [sum(row[:j]) for j in range(len(row))]
        parts = [net(x[i : i + 1, start : start + n])[0] for start, n in zip(starts, row, strict=True)]
        found.append(mx.concatenate(parts, axis=1))
    return mx.concatenate(found)


def gradients(net, outputs):
    """Of a random projection of the outputs, by name."""
    parameters = net.trainable_parameters()

    def value(parameters):
        net.update(parameters)
        y = outputs()
        return (y * mx.random.normal(y.shape, key=mx.random.key(9))).sum()

    found = dict(tree_flatten(mx.grad(value)(parameters)))
    net.update(parameters)
    return found


def agree(net, rows=ROWS):
    """Values and gradients, to rounding."""
    x, packed = tokens(rows), numbers(rows)
    close(net(x, segments=packed)[0], alone(net, x, rows), 1e-5)
    together = gradients(net, lambda: net(x, segments=packed)[0])
    for name, gradient in gradients(net, lambda: alone(net, x, rows)).items():
        close(together[name], gradient, 1e-4)


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("attention", ["all", "window"])
def test_every_position_begins_anew(attention, position):
    agree(made(MIXERS[attention], POSITIONS[position], limit=20 if position in by_length else 100))


@pytest.mark.parametrize("position", ["rope", "t5"])
@pytest.mark.parametrize("attention", ["chunks", "capped"])
def test_every_mixer_keeps_documents_apart(attention, position):
    """Chunks are counted from the beginning of the document."""
    agree(made(MIXERS[attention], POSITIONS[position]))


@pytest.mark.parametrize("layout", sorted({ref.name for ref in registry("layout").refs()}))
def test_every_layout_keeps_documents_apart(layout):
    block = attrs.evolve(SMALL, position="rope", layout=layout)
    agree(randomise(LanguageModel(ModelConfig(block=block, vocab_size=50, n_layers=2))).eval())


def test_layers_that_mix_nothing_leave_the_others_alone():
    """Positions begin anew in a model whose first layer has no mixer, and in one without any."""
    nothing, learned = (
        attrs.evolve(SMALL, attention="none", position="learned"),
        attrs.evolve(SMALL, position="learned"),
    )
    for pattern in (["n", "l"], ["n", "n"]):
        agree(
            made(
                block=nothing,
                blocks={key: each for key, each in (("n", nothing), ("l", learned)) if key in pattern},
                block_pattern=pattern,
            )
        )


@pytest.mark.parametrize("attention", ["all", "chunks"])
def test_lengths_of_documents_decide_where_rotations_depend_on_them(attention):
    """Two documents of one row have frequencies of their own: packed with a long one, a short one is turned as alone."""
    net = made(MIXERS[attention], POSITIONS["longrope"])
    x = tokens()
    packed = net(x, segments=numbers())[0]
    close(packed[0, :66], net(x[:1, :66])[0][0], 1e-5)
    close(packed[0, 67:], net(x[:1, 67:])[0][0], 1e-5)
    other = made(MIXERS[attention], POSITIONS["rope"])
    other.update(net.parameters())
    assert mx.abs(packed - other(x, segments=numbers())[0]).max() > 1e-3


def test_lengths_are_those_of_runs():
    offset = mx.array([[0, 1, 2, 0, 0, 1], [0, 1, 2, 3, 4, 5], [4, 5, 0, 1, 2, 0]])
    expected = [[3, 3, 3, 1, 2, 2], [6] * 6, [6, 6, 3, 3, 3, 1]]
    assert document_lengths(offset).tolist() == expected


def test_a_row_of_one_document_is_what_it_is_without_segments():
    net, x = made(), tokens()
    close(net(x, segments=mx.zeros(x.shape, mx.int32))[0], net(x)[0], 1e-5)


def test_a_document_begins_where_the_number_changes():
    """Whatever the numbers are: one that comes again is another document."""
    net, x = made(), tokens([[4, 3, 3]])
    again = mx.array([[7] * 4 + [2] * 3 + [7] * 3])
    close(net(x, segments=again)[0], alone(net, x, [[4, 3, 3]]), 1e-5)
    assert Segments(again).offset.tolist() == [[0, 1, 2, 3, 0, 1, 2, 0, 1, 2]]
    assert Segments(again).starts.tolist() == [[i in (0, 4, 7) for i in range(10)]]


def test_one_token_a_row():
    net, x = made(position="learned"), mx.array([[3], [4]])
    close(net(x, segments=mx.array([[0], [0]]))[0], net(x)[0], 1e-5)


def test_hidden_and_embeddings():
    """`hidden` takes segments too, and embeddings may stand in place of tokens."""
    net, x = made(), tokens()
    expected = alone(net, x)
    close(net.logits(net.hidden(x, segments=numbers())[0]), expected, 1e-5)
    close(net(embeddings=net.embed_tokens(x), segments=numbers())[0], expected, 1e-5)


@pytest.mark.parametrize("position", ["rope", "longrope", "learned", "alibi"])
@pytest.mark.parametrize("recompute_every", [0, 1, 2])
def test_compiled_and_recomputed(position, recompute_every, monkeypatch):
    """A compiled gradient, of blocks that are computed twice or not, is the plain one; other segments need no new trace."""
    net = made(position=POSITIONS[position])
    x, others = tokens(), mx.array([[0] * 45 + [1] * 45] * 3)
    traces, seen = [], []
    monkeypatch.setattr(
        model, "recomputed", lambda *inputs, real=model.recomputed: (seen.append(inputs[3]), real(*inputs))[1]
    )

    def value(parameters, x, segments):
        traces.append(1)
        net.update(parameters)
        return (net(x, segments=segments)[0] ** 2).mean()

    parameters = net.trainable_parameters()
    expected = [mx.grad(value)(parameters, x, each) for each in (numbers(), others)]
    assert not seen
    net.train()
    net.recompute_every = recompute_every
    traces.clear()
    compiled = mx.compile(mx.grad(value))
    for segments, plain in zip((numbers(), others), expected, strict=True):
        found = dict(tree_flatten(compiled(parameters, x, segments)))
        for name, gradient in tree_flatten(plain):
            close(found[name], gradient, 1e-4)
    net.update(parameters)
    assert len(traces) == 1
    assert len(seen) == (0, 2, 1)[recompute_every]
    assert all(isinstance(each, Segments) for each in seen)


def test_without_segments_nothing_is_asked_of_a_mixer():
    """A mixer is given no cache, and the mask by its name."""
    net, given = made(), []

    class Spy(type(net.layers[0].attention)):
        def __call__(self, x, mask=None, cache=None, *, position=None):
            given.append((mask, cache))
            return super().__call__(x, mask, cache, position=position)

    net.layers[0].attention.__class__ = Spy
    net(tokens())
    assert given == [("causal", None)]


@pytest.mark.parametrize("scope", [Scope(), Scope(window=5), Scope(chunk=4), Scope(window=5, keep=2), Scope(chunk=30)])
def test_who_sees_whom(scope):
    """The mask of each part of the queries, over the keys in its span, is the loop's; what is left out is seen by none."""
    rows = [[9, 1, 23], [33], [11, 11, 11]]
    segments = Segments(numbers(rows))
    view = View.of(segments.mask, 33, 33, segments, scope)
    expected = mx.stack([_blocks(row, scope) for row in rows])
    assert (view.boolean()[:, 0] == expected).all()
    for start, end in ((0, 33), (0, 8), (8, 20), (32, 33)):
        begin, last = view.span(start, end)
        seen = mx.zeros((3, end - start, 33), mx.bool_)
        seen[:, :, begin:last] = view.allowed(start, end)[:, 0]
        assert (seen == expected[:, start:end]).all()
    assert view.span(8, 20) == (max(0, 8 + 1 - {5: 5, 4: 4, 30: 30, None: 99}[_size(scope)]), 20)
    other = View.of(mx.ones((3, 1, 33, 33), mx.bool_), 33, 33, segments, scope)
    assert other.span(8, 20)[1] == 33  # a mask of one's own may show what comes later


def _size(scope):
    return None if scope.keep else scope.window or scope.chunk


def _blocks(row, scope):
    """(L, L), a causal block for each document."""
    seen, start = mx.zeros((33, 33), mx.bool_), 0
    for n in row:
        own = reference.allowed(n, n, scope.window, scope.chunk, scope.keep)
        seen[start : start + n, start : start + n] = own
        start += n
    return seen


class Plain(AttentionBase):
    """As a notebook has it: three arguments, the cache's offset, and a softmax written out."""

    def __init__(self, config):
        super().__init__(config)
        self.heads = config.n_heads
        self.qkv = nn.Linear(config.d_model, 3 * config.d_model, bias=False)

    def make_cache(self):
        return KVCache()

    def __call__(self, x, mask=None, cache=None):
        q, k, v = (split_heads(each, self.heads) for each in mx.split(self.qkv(x), 3, axis=-1))
        q, k = self._position.rotate(q, k, 0 if cache is None else cache.offset)
        if cache is not None:
            k, v = cache.update_and_fetch(k, v)
        scores = q @ k.swapaxes(-1, -2) / 4
        if isinstance(mask, str):
            mask = mx.arange(k.shape[2]) <= mx.arange(k.shape[2])[:, None]
        scores = scores if mask is None else mx.where(mask, scores, -mx.inf)
        return join_heads(mx.softmax(scores, axis=-1) @ v), cache


@pytest.mark.parametrize("position", ["rope", "dynamic", "longrope", "learned"])
def test_a_mixer_of_keys_and_values_need_not_know(plugins, position):
    plugins.register("attention", "plain", Plain)
    agree(made("plain", POSITIONS[position], limit=20 if position in by_length else 100))


class State:
    """A memory of another kind."""

    offset = 0


class Recurrent(Plain):
    def make_cache(self):
        return State()


def test_a_state_that_does_not_begin_anew_is_refused(plugins):
    """Where the layer stands, what it is, and what to do."""
    plugins.register("attention", "recurrent", Recurrent)
    net = made(blocks={"a": SMALL, "b": attrs.evolve(SMALL, attention="recurrent")}, block_pattern=["a", "b"])
    net(tokens())
    with pytest.raises(ConfigError, match=r"model\.blocks\.b: attention 'recurrent': a Recurrent does .* a State, "):
        net(tokens(), segments=numbers())


def test_what_a_mixer_says_of_itself_counts():
    """A state may begin anew; and keys and values may not be all that is remembered."""
    says = lambda cls, value: type("Says", (cls,), {"segments": value})(SMALL)  # noqa: E731
    assert keeps_apart(Plain(SMALL))
    assert keeps_apart(says(Recurrent, True))
    assert not keeps_apart(registry("attention").get("none")(SMALL))
    for cls, value in ((Plain, False), (Recurrent, False)):
        with pytest.raises(ConfigError, match="segments = True"):
            keeps_apart(says(cls, value))


def test_a_mixer_that_mixes_nothing_is_given_nothing():
    segments = Segments(numbers())
    assert ConfigurableBlock(attrs.evolve(SMALL, attention="none")).for_documents(segments) is None
    assert ConfigurableBlock(SMALL).for_documents(segments) is segments


def test_a_cache_goes_on_with_one_document():
    net = made()
    with pytest.raises(ConfigError, match="segments or a cache"):
        net(tokens(), net.make_cache(), segments=numbers())


def test_a_number_for_each_token():
    with pytest.raises(ConfigError, match=r"segments of shape \(3, 5\) for tokens of shape \(3, 90\)"):
        Segments.of(numbers()[:, :5], (3, 90))


def test_a_long_row_of_short_documents_fits_a_short_table():
    """Only documents must be short; one that is not is refused, or, in a compiled function, no number comes of it."""
    net, x = made(position="learned", limit=70), tokens()
    close(net(x[:1], segments=numbers()[:1])[0][0, :66], net(x[:1, :66])[0][0], 1e-5)
    assert Segments.of(mx.array([[0, 0, 0, 1]]), (1, 4), limit=3).offset.tolist() == [[0, 1, 2, 0]]
    with pytest.raises(ConfigError, match="a document of 90 tokens does not fit positions for 70"):
        net(x, segments=numbers())
    found = mx.compile(lambda x, segments: net(x, segments=segments)[0])(x, numbers())
    assert mx.isfinite(found[0]).all()
    assert not mx.isfinite(found[1, 70:]).any()


def test_copies_of_a_model_that_read_packed_rows():
    net, x = made(position=POSITIONS["longrope"]), tokens()
    y = net(x, segments=numbers())[0]
    close(copy.deepcopy(net)(x, segments=numbers())[0], y, 0.0)


def test_half_precision():
    """In bfloat16 packed rows stay in bfloat16, and near."""
    for position in ("rope", "learned", "alibi", "t5"):
        net, x = made(position=POSITIONS[position]), tokens()
        net.set_dtype(mx.bfloat16)
        y = net(x, segments=numbers())[0]
        assert y.dtype == mx.bfloat16
        close(y, alone(net, x), 0.05)
