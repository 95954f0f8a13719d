"""What a model remembers, in other ways than whole, and on disk."""

import json

import attrs
import mlx.core as mx
import pytest

from lmx_core import LanguageModel, ModelConfig, load_cache, save_cache, spec
from lmx_core.components import softmax
from lmx_core.components.caches import KVCache
from lmx_core.components.masks import Scope, View
from lmx_core.errors import CheckpointError, ConfigError, LmxError
from lmx_core.registry import registry
from lmx_core.testing import SMALL, randomise
from lmx_core.testing.checks import close

TOKENS = mx.random.randint(0, 50, (2, 60), key=mx.random.key(3))
BLOCK = attrs.evolve(SMALL, position="rope")


def model(attention="gqa", **changes):
    block = attrs.evolve(BLOCK, attention=attention)
    return randomise(LanguageModel(ModelConfig(block=block, vocab_size=50, n_layers=2, **changes))).eval()


def continued(net, cache, size=7, tokens=TOKENS):
    parts = [net(tokens[:, i : i + size], cache=cache)[0] for i in range(0, tokens.shape[1], size)]
    return mx.concatenate(parts, axis=1)


@pytest.mark.parametrize("size", [1, 7, 60])
def test_a_rotating_cache_makes_a_model_one_of_windows(size):
    """However the tokens come; the first ones stay visible with `keep`."""
    net = model()
    windowed = model(spec("sliding_window", window=10))
    windowed.update(net.parameters())
    close(continued(net, net.make_cache("rotating", max_size=10), size), windowed(TOKENS)[0])
    kept = continued(net, net.make_cache("rotating", max_size=10, keep=3), size)
    close(kept, continued(net, net.make_cache("rotating", max_size=10, keep=3), 20))
    assert mx.abs(kept - windowed(TOKENS)[0]).max() > 1e-3


def test_a_chunked_cache_makes_a_model_one_of_chunks():
    net = model()
    chunked = model(spec("chunked", chunk_size=16))
    chunked.update(net.parameters())
    close(continued(net, net.make_cache("chunked", chunk_size=16)), chunked(TOKENS)[0])


@pytest.mark.parametrize(
    "attention", ["gqa", spec("sliding_window", window=9), spec("chunked", chunk_size=16)], ids=str
)
def test_a_quantised_cache_goes_with_windows_and_batches(attention):
    """Near to the whole one with 8 bits; and in a batch of different lengths exactly what each row is alone with it."""
    net = model(attention)
    near = continued(net, net.make_cache("quantised", bits=8))
    assert mx.abs(near - net(TOKENS)[0]).max() < 0.1 * mx.abs(near).max()
    rows = mx.concatenate([mx.pad(TOKENS[:1, :40], [(0, 0), (20, 0)]), TOKENS[1:]])
    ragged = continued(net, net.make_cache("quantised", bits=4, padding=[20, 0]), 60, rows)
    alone = continued(net, net.make_cache("quantised", bits=4), 60, TOKENS[:1, :40])
    close(ragged[:1, 20:], alone)


def test_a_quantised_cache_is_small():
    net = model()
    whole, small = net.make_cache(), net.make_cache("quantised", bits=4, group_size=32)
    continued(net, whole)
    continued(net, small)
    assert small[0].nbytes < 0.4 * whole[0].nbytes


def test_a_layer_keeps_its_own_scope():
    """A window stays one in any kind of cache; chunks of another size are refused."""
    net = model(spec("sliding_window", window=9))
    assert net.make_cache("quantised")[0].scope == Scope(window=9)
    assert net.make_cache("rotating", max_size=4)[0].scope == Scope(window=4)
    with pytest.raises(ConfigError, match="chunks of 8 tokens does not serve a layer of chunks of 16"):
        model(spec("chunked", chunk_size=16)).make_cache("chunked", chunk_size=8)
    with pytest.raises(LmxError, match="no cache named 'quantized'. Did you mean 'quantised'"):
        net.make_cache("quantized")
    with pytest.raises(LmxError, match="bits"):
        net.make_cache("quantised", bits=7)


def test_caches_of_other_kinds_do_not_join():
    net = model()
    one, other = net.make_cache(), net.make_cache("quantised")
    for cache in (one, other):
        net(TOKENS, cache=cache)
    with pytest.raises(ConfigError, match="KVCache.* cannot hold .*QuantisedCache"):
        one[0].extend(other[0])
    with pytest.raises(ConfigError, match="no rows yet"):
        one[0].extend(net.make_cache()[0])
    with pytest.raises(ConfigError, match="padding goes before the first token, but the cache has seen 60"):
        one[0].pad([1, 2])


@pytest.mark.parametrize(
    ("kind", "options"),
    [(None, {}), ("rotating", {"max_size": 9, "keep": 2}), ("quantised", {"bits": 4, "group_size": 32})],
)
@pytest.mark.parametrize("padding", [None, [5, 0]])
def test_a_prompt_is_read_once(kind, options, padding, tmp_path):
    """Saved and loaded it goes on to the bit, and is of the kind that it was."""
    net = model()
    cache = net.make_cache(kind, padding=padding, **options)
    net(TOKENS[:, :40], cache=cache)
    save_cache(cache, tmp_path / "prompt.safetensors")
    loaded = load_cache(tmp_path / "prompt.safetensors")
    assert [type(each) for each in loaded] == [type(each) for each in cache]
    assert loaded[0].scope == cache[0].scope
    close(net(TOKENS[:, 40:], cache=loaded)[0], net(TOKENS[:, 40:], cache=cache)[0], 0.0)


def test_layers_without_keys_are_saved_too(tmp_path):
    block = attrs.evolve(BLOCK, attention="none", position="learned")
    net = randomise(LanguageModel(ModelConfig(block=block, vocab_size=50, n_layers=2))).eval()
    cache = net.make_cache()
    net(TOKENS[:, :40], cache=cache)
    save_cache(cache, tmp_path / "prompt.safetensors")
    loaded = load_cache(tmp_path / "prompt.safetensors")
    close(net(TOKENS[:, 40:], cache=loaded)[0], net(TOKENS[:, 40:], cache=cache)[0], 0.0)


OWN = """
from lmx_core.components.caches import KVCache

class Own(KVCache):
    pass
"""


def test_a_cache_of_another_author_is_found_by_its_name(plugins, tmp_path):
    """And without its distribution the error says what to install; one that nobody offers is not saved."""
    site = plugins.install("acme-cache", {"cache.own": "acme_cache:Own"}, OWN, version="1.2")
    net = model()
    cache = net.make_cache("own")
    net(TOKENS, cache=cache)
    file = tmp_path / "prompt.safetensors"
    save_cache(cache, file)
    assert type(load_cache(file)[0]) is registry("cache").get("own")
    plugins.uninstall(site)
    with pytest.raises(LmxError, match="acme-cache provides it: pip install acme-cache"):
        load_cache(file)
    with pytest.raises(ConfigError, match='no distribution offers Own as a cache.* Publish it: "cache.<name>"'):
        save_cache(cache, file)


def test_damaged_files_are_refused(tmp_path):
    net = model()
    cache = net.make_cache()
    net(TOKENS, cache=cache)
    file = tmp_path / "prompt.safetensors"
    with pytest.raises(ConfigError, match="name.safetensors, got .*prompt.bin"):
        save_cache(cache, tmp_path / "prompt.bin")
    with pytest.raises(CheckpointError, match="damaged or no cache of lmx's"):
        load_cache(tmp_path / "nowhere.safetensors")
    save_cache(cache, file)
    whole = file.read_bytes()
    for text in (b"", whole[:40], b"nonsense" + whole):
        file.write_bytes(text)
        with pytest.raises(CheckpointError, match="damaged or no cache of lmx's"):
            load_cache(file)
    mx.save_safetensors(str(file), {"a": mx.zeros(3)})
    with pytest.raises(CheckpointError, match="no cache of lmx's"):
        load_cache(file)
    arrays, metadata = mx.load(str(file), return_metadata=True)
    about = {"lmx_format": 99, "layers": [], "components": []}
    mx.save_safetensors(str(file), arrays, {**metadata, "lmx": json.dumps(about)})
    with pytest.raises(CheckpointError, match="format 99; this lmx reads format 1"):
        load_cache(file)


def test_memory_stays_flat_in_a_window():
    """A step over a window of 32 takes as much after 4000 tokens as after 600."""
    cache = KVCache(Scope(window=32))
    sizes = []
    for _ in range(4000):
        token = mx.zeros((1, 2, 1, 16))
        keys, _ = cache.update_and_fetch(token, token)
        sizes.append(cache.nbytes)
    assert max(sizes[600:]) <= max(sizes[:600])
    assert keys.shape[2] == 32


# What a review found ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [None, "keeping"])
def test_joined_rows_take_back_what_every_row_still_has(kind):
    net = model(spec("sliding_window", window=8) if kind is None else "gqa")
    long = mx.random.randint(0, 50, (2, 1000), key=mx.random.key(9))
    one, other = (
        net.make_cache(*(["rotating"] if kind else []), **({"max_size": 8, "keep": 2} if kind else {})) for _ in "ab"
    )
    for i in range(0, 900, 50):
        net(long[:1, i : i + 50], cache=one)
    net(long[1:, :850], cache=other)
    for memory, more in zip(one, other, strict=True):
        memory.extend(more)
        assert not memory.is_trimmable()
        assert memory.trim(600) < 300
    seen = one[0].offset.tolist()
    both = mx.concatenate([long[row : row + 1, n : n + 2] for row, n in enumerate(seen)])
    found = net(both, cache=one)[0]
    for row, n in enumerate(seen):
        alone = net.make_cache(*(["rotating"] if kind else []), **({"max_size": 8, "keep": 2} if kind else {}))
        net(long[row : row + 1, :n], cache=alone)
        close(found[row : row + 1], net(both[row : row + 1], cache=alone)[0])


@pytest.mark.parametrize("padding", [[2, 2], [4, 6], [40, 0]])
@pytest.mark.parametrize("size", [1, 3, 60])
@pytest.mark.parametrize("attention", ["gqa", spec("sliding_window", window=9)], ids=str)
def test_all_rows_may_be_padded(attention, size, padding):
    """Also those that are nothing but padding for a while."""
    net = model(attention)
    rows = mx.stack([mx.concatenate([TOKENS[1, :pad], TOKENS[i, : 60 - pad]]) for i, pad in enumerate(padding)])
    y = continued(net, net.make_cache(padding=padding), size, rows)
    for i, pad in enumerate(padding):
        close(y[i : i + 1, pad:], net(TOKENS[i : i + 1, : 60 - pad])[0])


def test_rows_that_are_padding_so_far():
    net = model()
    cache = net.make_cache(padding=[40, 0])
    net(TOKENS[:, :30], cache=cache)
    assert [memory.trim(5) for memory in cache] == [0, 0]
    assert cache[0].trim(-5) == 0
    one = [memory.extract(0) for memory in cache]
    assert one[0].offset.tolist() == [-10]
    y = continued(net, one, 7, mx.concatenate([TOKENS[1:, :10], TOKENS[:1, :20]], axis=1))
    close(y[:, 10:], net(TOKENS[:1, :20])[0])
    early = net.make_cache(padding=[3, 0])
    for memory in early:
        memory.filter([0])
    y = continued(net, early, 7, mx.concatenate([TOKENS[1:, :3], TOKENS[:1, :20]], axis=1))
    close(y[:, 3:], net(TOKENS[:1, :20])[0])


def test_rows_that_are_not_there():
    net = model()
    cache = net.make_cache()
    net(TOKENS, cache=cache)
    for call, says in (
        (lambda: cache[0].filter([0, 5]), "row 5 of a batch of 2"),
        (lambda: cache[0].extract(7), "row 7 of a batch of 2"),
        (lambda: cache[0].filter([]), "at least one row"),
        (lambda: net(TOKENS, cache=net.make_cache(padding=[1, 2, 3])), "padding for 3 rows, but the batch has 2"),
        (lambda: net(TOKENS, cache=net.make_cache(length=[1, 2, 3])), "length for 3 rows, but the batch has 2"),
    ):
        with pytest.raises(ConfigError, match=says):
            call()


def test_kinds_that_do_not_fit_are_refused():
    net = model()
    with pytest.raises(ConfigError, match="cache 'tokens' holds no keys and values"):
        net.make_cache("tokens")
    with pytest.raises(ConfigError, match="max_size: options of a kind of cache, and no kind is given"):
        net.make_cache(max_size=4)
    block = attrs.evolve(BLOCK, attention="none", position="none")
    nothing = LanguageModel(ModelConfig(block=block, vocab_size=50, n_layers=1))
    with pytest.raises(LmxError, match="no cache named 'nonsense'"):
        nothing.make_cache("nonsense")


def test_a_cache_of_rows_that_says_too_little_is_refused():
    """Of another library, whose padding would be taken for tokens."""

    class Foreign(KVCache):
        fetched = property(lambda self: self.no_such_thing, lambda self, value: None)

    net = model()
    cache = [Foreign() for _ in net.layers]
    for memory in cache:
        memory.pad([3, 0])
    with pytest.raises(ConfigError, match="does not say which keys it `fetched`"):
        net(TOKENS, cache=cache)


def test_a_chunk_ends_for_masks_that_see_ahead_too(monkeypatch):
    """In parts as at once, whoever may look at whom."""
    q, k, v = (mx.random.normal((1, 2, 150, 8), key=mx.random.key(i)) for i in range(3))
    view = View(mask=None, length=150, columns=150, scopes=(Scope(chunk=100),))
    found = []
    for queries in (64, 16, 1000):
        monkeypatch.setattr(softmax, "QUERIES", queries)
        found.append(softmax.attend(q, k, v, 0.3, view))
    close(found[0], found[2], 1e-5)
    close(found[1], found[2], 1e-5)


def test_caches_are_merged():
    """Into a new one; those that were merged go on as before."""
    net = model()
    one, other = net.make_cache(), net.make_cache()
    net(TOKENS[:1, :20], cache=one)
    net(TOKENS[1:, :5], cache=other)
    both = [memory.merge([memory, more, memory]) for memory, more in zip(one, other, strict=True)]
    assert both[0].offset.tolist() == [20, 5, 20]
    assert (one[0].offset, other[0].offset) == (20, 5)
    found = net(mx.stack([TOKENS[0, 20:22], TOKENS[1, 5:7], TOKENS[0, 20:22]]), cache=both)[0]
    close(found[1:2], net(TOKENS[1:, 5:7], cache=other)[0])
    close(found[2:], net(TOKENS[:1, 20:22], cache=one)[0])
    with pytest.raises(ConfigError, match="at least one cache"):
        KVCache.merge([])
    with pytest.raises(ConfigError, match="padding is a number of tokens for each row, got -1"):
        net.make_cache(padding=[-1, 2])
