"""What holds for caches of keys and values, fed with numbers of the kit's own."""

import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.core import array

from lmx_core.components.masks import View
from lmx_core.errors import ConfigError
from lmx_core.prompt_cache import load_cache, save_cache
from lmx_core.testing.subjects import Make, close, random_key

SCOPES: tuple[dict[str, int], ...] = ({}, {"window": 9}, {"chunk": 16})
NEAR = 0.15
"""How far from what was given, in parts of the largest number, a cache may return it: some hold it in few bits."""


def _tokens(length: int, rows: int = 2) -> tuple[array, array]:
    """Keys and values, which differ in width."""
    keys, values = ((rows, 2, length, width) for width in (64, 32))
    return mx.random.normal(keys, key=random_key(1)), mx.random.normal(values, key=random_key(2))


def _feed(cache: Any, tokens: tuple[array, array], start: int, end: int) -> tuple[array, array, View]:
    """What it returns for some more tokens, and which those are."""
    k, v = (each[:, :, start:end] for each in tokens)
    keys, values = cache.update_and_fetch(k, v)
    return keys, values, View.of(None, end - start, keys.shape[2], cache)


def _feed_all(cache: Any, tokens: tuple[array, array], size: int) -> tuple[array, array, View]:
    """The last of what it returns, fed so many at once."""
    length = tokens[0].shape[2]
    *_, last = (_feed(cache, tokens, i, min(i + size, length)) for i in range(0, length, size))
    return last


def _scoped(make: Make) -> list[Make]:
    """It in each of the scopes, but those that it does not go with."""
    fitting: list[Make] = []
    for scope in SCOPES:
        with suppress(ConfigError):
            make.changed(**scope)()
            fitting.append(make.changed(**scope))
    assert fitting, "it cannot be built with Scope()"
    return fitting


def holds_what_it_is_given(make: Make) -> None:
    """It returns every token that a new one may look at, near to how it was given, in order, and says which."""
    tokens = _tokens(600)
    for one in _scoped(make):
        cache, start = one(), 0
        for size in (3, 1, 1, 30, 1, 250, 1, 300, 1, 12):
            keys, values, view = _feed(cache, tokens, start, start + size)
            here: Any = view.keys().tolist()
            queries, whole = mx.arange(start, start + size)[:, None], mx.arange(start + size)
            seen = whole <= queries
            allowed = cache.scope.allows(queries, whole)
            wanted: Any = (seen if allowed is None else seen & allowed).any(axis=0).tolist()
            start += size
            missing = [position for position, needed in enumerate(wanted) if needed and position not in here]
            assert not missing, f"of {start} tokens, those at {missing[:5]} are missing from what it returned"
            assert here == sorted(set(here)), "tokens come twice, or out of order"
            for found, given in zip((keys, values), tokens, strict=True):
                assert found.dtype == given.dtype, f"{given.dtype} became {found.dtype}"
                close(found, given[:, :, mx.array(here)], NEAR)


def parts_are_like_the_whole(make: Make) -> None:
    """However tokens come, one by one, in chunks or all at once, the last one is returned the same keys and values."""
    tokens = _tokens(300)
    for one in _scoped(make):
        last = []
        for size in (1, 7, 100, 299):
            cache = one()
            _feed_all(cache, tuple(each[:, :, :299] for each in tokens), size)  # pyright: ignore[reportArgumentType]
            last.append(_feed(cache, tokens, 299, 300))
        for keys, values, view in last[1:]:
            assert view.keys().tolist() == last[0][2].keys().tolist(), "other tokens come back"
            close(keys, last[0][0], 0.0)
            close(values, last[0][1], 0.0)


def tokens_are_taken_back(make: Make) -> None:
    """Restored to a mark, or trimmed, it goes on as if the tokens had not come; `trim` says how many it took back."""
    tokens, others = _tokens(600), tuple(1 - each for each in _tokens(600))
    for one in _scoped(make):
        for seen, more in ((20, 5), (300, 5), (200, 300)):
            expected, cache = one(), one()
            for each in (expected, cache):
                _feed(each, tokens, 0, seen)
            mark = cache.checkpoint()
            _feed(cache, others, seen, seen + more)  # pyright: ignore[reportArgumentType]
            cache.restore(mark)
            assert cache.offset == seen, f"offset is {cache.offset} after {seen} tokens"
            if cache.is_trimmable():
                _feed(cache, others, seen, seen + 3)  # pyright: ignore[reportArgumentType]
                taken = cache.trim(3)
                assert taken == 3, f"trim(3) took {taken} back, though all can be"
            for found, wanted in zip(
                _feed(cache, tokens, seen, seen + 2)[:2], _feed(expected, tokens, seen, seen + 2)[:2], strict=True
            ):
                close(found, wanted, 0.0)


def nothing_is_taken_back_that_is_gone(make: Make) -> None:
    """Asked for many tokens, `trim` takes back those that it can, all where it `is_trimmable()`, and goes on from there as a
    cache does that never saw them; in a batch of rows of different lengths too.
    """
    tokens = _tokens(900)
    for one in _scoped(make):
        for wanted in (5, 200, 800):
            cache = one()
            _feed_all(cache, _first(tokens, 800), 50)
            whole = cache.is_trimmable()
            taken = cache.trim(wanted)
            assert 0 <= taken <= wanted, f"trim({wanted}) took {taken} back"
            assert taken == wanted or not whole, f"trim({wanted}) took {taken} back, though all can be"
            expected = one()
            _feed_all(expected, _first(tokens, 800 - taken), 50) if taken < 800 else None
            _alike(_feed(cache, tokens, 800 - taken, 803 - taken), _feed(expected, tokens, 800 - taken, 803 - taken))
        short, rows = one(), [tuple(each[row : row + 1] for each in tokens) for row in (0, 1)]
        batch, alone = one(), [one(), one()]
        _feed_all(batch, _first(rows[0], 800), 50)
        _feed_all(short, _first(rows[1], 30), 7)
        batch.extend(short)
        taken = batch.trim(500)
        assert 0 <= taken <= 30, f"trim(500) took {taken} back of a row of 30 tokens"
        places = [[0, 800 - taken], [1, 30 - taken]]
        for cache, row, (_, seen) in zip(alone, rows, places, strict=True):
            _feed_all(cache, _first(row, seen), 50) if seen else None
        _step(batch, alone, rows, places, 3)


def padding_is_no_token(make: Make) -> None:
    """A batch whose rows begin with padding returns for each row what it returns for the row alone."""
    tokens = _tokens(200)
    for one in _scoped(make):
        for padding in ([5, 0], [90, 3]):
            batch = one()
            batch.pad(padding)
            rows = [tuple(each[row : row + 1] for each in tokens) for row in (0, 1)]
            filled = [
                mx.stack(
                    [
                        mx.concatenate([9 + each[row][:, :pad], each[row]], axis=1)[:, :110]
                        for row, pad in enumerate(padding)
                    ]
                )
                for each in tokens
            ]
            for start in range(0, 110, 22):
                batch.update_and_fetch(*(each[:, :, start : start + 22] for each in filled))
            assert batch.nbytes > 0, "nbytes is 0 after 110 tokens"
            places, alone = [[row, 110 - pad] for row, pad in enumerate(padding)], [one(), one()]
            for cache, row, (_, seen) in zip(alone, rows, places, strict=True):
                _feed_all(cache, _first(row, seen), 22)
            _step(batch, alone, rows, places, 2)


def _first(tokens: Any, n: int) -> Any:
    keys, values = tokens
    return keys[:, :, :n], values[:, :, :n]


def _alike(found: tuple[array, array, View], expected: tuple[array, array, View]) -> None:
    """The same tokens, to the bit."""
    assert found[2].keys().tolist() == expected[2].keys().tolist(), "other tokens come back"
    close(found[0], expected[0], 0.0)
    close(found[1], expected[1], 0.0)


def saved_caches_go_on(make: Make) -> None:
    """A fresh one that is given its `state`, and one that comes back from a file, go on like it, each by itself."""
    tokens = _tokens(600)
    for one in _scoped(make):
        cache, fresh = one(), one()
        _feed_all(cache, tuple(each[:, :, :590] for each in tokens), 70)  # pyright: ignore[reportArgumentType]
        fresh.state = cache.state
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "cache.safetensors"
            save_cache([cache], file)
            (loaded,) = load_cache(file)
        expected = _feed(cache.copy(), tokens, 590, 600)
        for each in (fresh, loaded, cache):
            assert each.scope == cache.scope, f"{each.scope} became {cache.scope}"
            found = _feed(each, tokens, 590, 600)
            assert found[2].keys().tolist() == expected[2].keys().tolist(), "other tokens come back"
            close(found[0], expected[0], 0.0)
            close(found[1], expected[1], 0.0)


def memory_is_bounded_by_the_scope(make: Make) -> None:
    """What no token will look at is forgotten: a window of 9 takes no more memory after 3000 tokens than after 1000."""
    cache, tokens = make.changed(window=9)(), _tokens(3000)
    sizes = []
    for start in range(0, 3000, 50):
        _feed(cache, tokens, start, start + 50)
        sizes.append(cache.nbytes)
    assert sizes[-1] <= max(sizes[:20]), f"{max(sizes[:20])} bytes became {sizes[-1]}"


def rows_join_and_leave(make: Make) -> None:
    """Caches of different lengths become one batch, whose rows go on as each does alone; rows leave, in any order."""
    tokens = _tokens(400, rows=3)
    for one in _scoped(make):
        for lengths in ((20, 5, 33), (300, 40, 5)):
            alone = [one() for _ in lengths]
            rows = [tuple(each[row : row + 1] for each in tokens) for row in range(3)]
            for cache, row, length in zip(alone, rows, lengths, strict=True):
                _feed_all(cache, tuple(each[:, :, :length] for each in row), 19)  # pyright: ignore[reportArgumentType]
            batch = alone[0].copy()
            for other in alone[1:]:
                batch.extend(other)
            places = [[row, length] for row, length in enumerate(lengths)]
            _step(batch, alone, rows, places, 3)
            batch.filter([2, 0])
            places = [places[2], places[0]]
            _step(batch, alone, rows, places, 1)
            single = batch.extract(1)
            _step(single, alone, rows, places[1:], 2)


def a_row_goes_on_as_several(make: Make) -> None:
    """A row that is named several times when rows are chosen goes on as several, each by itself and as it does alone."""
    tokens = _tokens(400, rows=3)
    first, second, other = (tuple(each[row : row + 1] for each in tokens) for row in range(3))
    for one in _scoped(make):
        for long, short in ((20, 5), (300, 40)):
            batch, alone = one(), one()
            _feed_all(batch, _first(first, long), 19)
            _feed_all(alone, _first(second, short), 19)
            apart = [alone.copy(), batch.copy(), alone]
            batch.extend(alone)
            batch.filter([1, 0, 1])
            places = [[0, short], [1, long], [2, short]]
            for n in (3, 1, 20):
                _step(batch, apart, [second, first, other], places, n)


def _step(batch: Any, alone: Any, rows: Any, places: list[list[int]], n: int) -> None:
    """Some more tokens for the rows of a batch, [row, tokens so far] each, compared with each by itself."""
    offset: Any = batch.offset
    found = offset.tolist() if isinstance(offset, array) else [offset] * len(places)
    assert found == [seen for _, seen in places], f"offset is {found}, rows have seen {[seen for _, seen in places]}"
    new = [mx.concatenate([rows[row][i][:, :, seen : seen + n] for row, seen in places]) for i in (0, 1)]
    keys, values = batch.update_and_fetch(*new)
    view = View.of(None, n, keys.shape[2], batch)
    positions = view.keys()
    for i, place in enumerate(places):
        row, seen = place
        k, v, own = _feed(alone[row], rows[row], seen, seen + n)
        here: Any = (positions[i] if positions.ndim == 2 else positions).tolist()
        wanted: Any = own.keys().tolist()
        index = mx.array([here.index(position) for position in wanted])
        close(keys[i : i + 1, :, index], k, 0.0)
        close(values[i : i + 1, :, index], v, 0.0)
        place[1] = seen + n
