"""What goes wrong in the caches of mixers. Each fault can be given to any mixer with keys and values."""

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
        self.offset = max(self.offset - n, 0)
        return n


@cache_fault("cache_counts_tokens", says="differ by|offset")
class DoesNotRestore(KVCache):
    def restore(self, mark):
        self.offset -= 0


@cache_fault("cache_counts_tokens", says="number of tokens seen")
class CountsRoundNumbers(KVCache):
    """It grows in steps and counts what it has room for."""

    offset = property(lambda self: -(-self.count // 8) * 8, lambda self, value: vars(self).update(count=value))
    count = 0

    def update_and_fetch(self, keys, values):
        inner = KVCache()
        inner.keys, inner.values, inner.offset = self.keys, self.values, self.count
        found = inner.update_and_fetch(keys, values)
        self.keys, self.values, self.count = inner.keys, inner.values, inner.offset
        return found


@cache_fault("caches_share_nothing", says="differ by")
class KeepsTheArraysItIsGiven(KVCache):
    @property
    def state(self):
        return super().state

    @state.setter
    def state(self, arrays):
        self.keys, self.values = arrays
        self.offset = self.keys.shape[2]


@cache_fault("cache_state_round_trips", says="differ by")
class SavesAllButTheLast(KVCache):
    @property
    def state(self):
        return [each[..., :-1, :] for each in super().state]

    @state.setter
    def state(self, arrays):
        KVCache.state.fset(self, arrays)


@cache_fault("cache_state_round_trips", says="nbytes is 0")
class WeighsNothing(KVCache):
    nbytes = 0
