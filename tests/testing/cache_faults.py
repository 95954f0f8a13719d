"""What goes wrong in the caches of mixers. Each fault can be given to any mixer with keys and values."""

import mlx.core as mx

from lmx_core.components.caches import KVCache

from .faults import fault


def cache_fault(*checks, says=""):
    """Note a class of caches that a mixer is given in place of its own."""

    def add(cache):
        def apply(mixer):
            return type("Faulty", (mixer,), {"make_cache": lambda self: cache()})

        apply.__name__ = cache.__name__
        return fault("attention", None, *checks, says=says)(apply)

    return add


def returns_another_cache(mixer):
    class Faulty(mixer):
        def __call__(self, x, mask=None, cache=None, *, position=None):
            y, _ = super().__call__(x, mask, cache, position=position)
            other = None if cache is None else KVCache()
            if other is not None:
                other.state = cache.state
            return y, other

    return Faulty


fault("attention", None, "cache_equals_one_pass", says="not the cache that was given")(returns_another_cache)


def shares_one_cache(mixer):
    return type("Faulty", (mixer,), {"make_cache": lambda self, cache=KVCache(): cache})  # noqa: B008


fault("attention", None, "caches_share_nothing", "cache_equals_one_pass", says="differ by")(shares_one_cache)


@cache_fault("cache_counts_tokens", says="differ by")
class TrimsOneToken(KVCache):
    def trim(self, n):
        super().trim(n - 1)
        return n


@cache_fault("cache_counts_tokens", says=r"trim\(5\) forgot another number")
class SaysAnotherNumber(KVCache):
    def trim(self, n):
        return super().trim(n) - 1


@cache_fault("cache_counts_tokens", says="forgot more than there was")
class TrimsMoreThanThereIs(KVCache):
    def trim(self, n):
        self.columns = max(self.columns - n, 0)
        return n


@cache_fault("cache_counts_tokens", says="differ by|offset")
class DoesNotRestore(KVCache):
    def restore(self, mark):
        pass


@cache_fault("cache_counts_tokens", says="number of tokens seen")
class CountsRoundNumbers(KVCache):
    """It grows in steps and counts what it has room for."""

    offset = property(lambda self: -(-self.columns // 8) * 8)


@cache_fault("caches_share_nothing", says="differ by")
class KeepsTheArraysItIsGiven(KVCache):
    @property
    def state(self):
        return super().state

    @state.setter
    def state(self, arrays):
        KVCache.state.fset(self, arrays)
        self._buffer.parts = tuple(arrays[:-1])


@cache_fault("cache_state_round_trips", says="differ by")
class SavesAllButTheLast(KVCache):
    @property
    def state(self):
        *parts, numbers = super().state
        return [*(each[..., :-1, :] for each in parts), numbers - mx.array([0, 0, 1])]

    @state.setter
    def state(self, arrays):
        KVCache.state.fset(self, arrays)


@cache_fault("ragged_batches_equal_single_rows", says="differ by")
class TakesPaddingForTokens(KVCache):
    def pad(self, padding):
        pass


@cache_fault("batches_join_and_leave", says="differ by")
class ForgetsPaddingWhenRowsJoin(KVCache):
    def extend(self, other):
        super().extend(other)
        self.padding = None


@cache_fault("batches_join_and_leave", says="differ by")
class KeepsRowsInTheirOrder(KVCache):
    def filter(self, rows):
        super().filter(sorted(rows))


@cache_fault("one_row_becomes_several", says="differ by")
class NamesEachRowOnce(KVCache):
    def filter(self, rows):
        super().filter([row if row not in rows[:i] else 0 for i, row in enumerate(rows)])


@cache_fault("cache_state_round_trips", says="nbytes is 0")
class WeighsNothing(KVCache):
    nbytes = 0


# By themselves --------------------------------------------------------------------------------------------------------


def by_itself(check, says):
    """Note a class that differs from the full cache of core in one thing."""
    return lambda faulty: fault("cache", "full", check, says=says)(lambda _: faulty)


@by_itself("holds_what_it_is_given", "differ by")
class ReturnsOtherValues(KVCache):
    def update_and_fetch(self, keys, values):
        keys, values = super().update_and_fetch(keys, values)
        return keys, values[:, ::-1]


@by_itself("holds_what_it_is_given", "are missing from what it returned")
class HasATooSmallWindow(KVCache):
    def _first(self, columns):
        return super()._first(columns) and super()._first(columns) + 1


@by_itself("parts_are_like_the_whole", "differ by")
class HoldsSingleTokensBetter(KVCache):
    def encode(self, x):
        return (x if x.shape[2] == 1 else 1.01 * x,)


@by_itself("tokens_are_taken_back", "offset is 25 after 20 tokens")
class StaysWhereItIs(KVCache):
    def restore(self, mark):
        pass


@by_itself("tokens_are_taken_back", r"trim\(3\) took 2 back")
class TakesOneLess(KVCache):
    def trim(self, n):
        return super().trim(n - 1)


@by_itself("saved_caches_go_on", "other tokens come back|differ by|broadcast")
class SavesWhereItIsWrongly(KVCache):
    @property
    def state(self):
        *parts, numbers = super().state
        return [*parts, numbers - mx.array([0, 0, 1])]

    @state.setter
    def state(self, arrays):
        KVCache.state.fset(self, arrays)


@by_itself("memory_is_bounded_by_the_scope", "bytes became")
class KeepsEverything(KVCache):
    def _first(self, columns):
        return 0


@by_itself("rows_join_and_leave", "offset is")
class CountsTheLongestRow(KVCache):
    offset = property(lambda self: self.columns)


@by_itself("a_row_goes_on_as_several", "offset is")
class CountsEachRowOnce(KVCache):
    def filter(self, rows):
        super().filter(sorted(rows))


@by_itself("nothing_is_taken_back_that_is_gone", "other tokens come back|differ by|broadcast|took|missing")
class TakesBackWhatIsGone(KVCache):
    def _reaches(self, columns):
        return True


@by_itself("nothing_is_taken_back_that_is_gone", "though all can be|took")
class SaysThatAllCanBeTaken(KVCache):
    def is_trimmable(self):
        return True


@by_itself("padding_is_no_token", "offset is")
class TakesPaddingForAToken(KVCache):
    def pad(self, padding):
        pass


@by_itself("padding_is_no_token", "nbytes is 0")
class WeighsNothingAtAll(KVCache):
    nbytes = 0
