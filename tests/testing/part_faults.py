"""What goes wrong in the other parts of a model."""

import attrs
import mlx.core as mx
from mlx import nn

from lmx_core.components.positions import PositionBase
from lmx_core.config import ModelConfig

from .faults import fault

# FFNs, norms ------------------------------------------------------------------------------------------------------------


def output(*where, says="differ by"):
    """Note a function of an FFN's or a norm's input and output that stands in place of the output."""

    def add(change):
        def apply(part):
            class Faulty(part):
                def __call__(self, x):
                    return change(x, super().__call__(x))

            return Faulty

        apply.__name__ = change.__name__
        for kind, base, check in where:
            fault(kind, base, check, says=says)(apply)
        return apply

    return add


@output(("ffn", "gated", "treats_positions_alike"), ("norm", "rms_norm", "treats_positions_alike"))
def lets_positions_talk(x, y):
    return y + 0.1 * x.mean(axis=-2, keepdims=True)


@output(("ffn", "standard", "rows_are_independent"), ("norm", "layer_norm", "rows_are_independent"))
def lets_rows_talk(x, y):
    return y + 0.1 * x.mean(axis=0, keepdims=True)


@output(("ffn", "gated", "accepts_zeros"), ("norm", "rms_norm", "accepts_zeros"), says="not finite")
def divides_by_the_length(x, y):
    return y / mx.sqrt(mx.square(x).sum(axis=-1, keepdims=True))


@output(("ffn", "gated", "accepts_zeros"), says="the gradient is not finite")
def has_no_slope_at_zero(x, y):
    return y + mx.sqrt(mx.square(x).sum(axis=-1, keepdims=True))


@output(("norm", "rms_norm", "keeps_shape_and_dtype"), says="bfloat16 became")
def computes_in_float32(x, y):
    return y.astype(mx.float32)


def always_has_the_models_width(norm):
    class Faulty(norm):
        def __init__(self, config, options, width=None):
            super().__init__(config, options)

    return Faulty


fault("norm", "rms_norm", "takes_a_width", says="must have the same size")(always_has_the_models_width)


def keeps_a_shape(norm):
    """It takes three axes to be all there are."""

    class Faulty(norm):
        def __call__(self, x):
            return super().__call__(x.reshape(x.shape[0], -1, x.shape[-1]))

    return Faulty


fault("norm", "layer_norm", "takes_a_width", says="became")(keeps_a_shape)


# Positions --------------------------------------------------------------------------------------------------------------


@fault("position", "rope", "offsets_continue", "cache_equals_one_pass_in_a_model", says="differ by")
def forgets_the_offset(position):
    class Faulty(position):
        def rotate(self, q, k, offset=0):
            return super().rotate(q, k, 0)

    return Faulty


@fault("position", "rope", "offsets_continue", says="differ by")
@fault("position", "sinusoidal", "offsets_continue", says="differ by")
@fault("position", "alibi", "offsets_continue", says="differ by")
def takes_one_offset_for_all_rows(position):
    def first(offset):
        return offset if isinstance(offset, int) or offset.shape[0] == 1 else offset[:1] + mx.zeros_like(offset)

    class Faulty(position):
        pass

    def taking_one(name):
        def method(self, *inputs):
            if name == "bias":
                queries, keys = inputs
                return position.bias(self, first(queries) if queries.ndim == 2 else queries, keys)
            *others, offset = inputs
            return getattr(position, name)(self, *others, first(offset)) if len(inputs) > 1 else None

        return method

    for name in ("embed", "rotate", "bias"):
        if getattr(position, name) is not getattr(PositionBase, name):
            setattr(Faulty, name, taking_one(name))
    return Faulty


@fault("position", "learned", "documents_begin_anew", "documents_of_a_row_are_apart_in_a_model", says="differ by")
@fault("position", "sinusoidal", "documents_begin_anew", "documents_of_a_row_are_apart_in_a_model", says="differ by")
def counts_from_the_beginning_of_a_row(position):
    class Faulty(position):
        def embed(self, x, offset=0):
            return super().embed(x, offset if isinstance(offset, int) or offset.ndim < 2 else 0)

    return Faulty


@fault("position", "rope", "dtypes_are_kept", says="bfloat16 became")
def turns_in_float32(position):
    class Faulty(position):
        def rotate(self, q, k, offset=0):
            return super().rotate(q.astype(mx.float32), k.astype(mx.float32), offset)

    return Faulty


@fault("position", "alibi", "dtypes_are_kept", says="the bias of queries .* has shape")
def has_a_bias_for_all_heads(position):
    class Faulty(position):
        def bias(self, queries, keys):
            return super().bias(queries, keys)[:, :1]

    return Faulty


@fault("position", "learned", "knows_its_limit", says="is placed somewhere")
def stays_at_the_last_row(position):
    class Faulty(position):
        def embed(self, x, offset=0):
            rows = mx.minimum(mx.arange(x.shape[1]) + offset, len(self.weight) - 1)
            return x + self.weight[rows]

    return Faulty


@fault("position", "sinusoidal", "knows_its_limit", says="are the same")
def stays_at_the_last_row_unsaid(position):
    class Faulty(position):
        def embed(self, x, offset=0):
            return super().embed(x, min(offset, 1000) if isinstance(offset, int) else offset)

    return Faulty


@fault("position", "rope", "tells_positions_apart", says="makes no difference")
def turns_all_alike(position):
    class Faulty(position):
        def rotate(self, q, k, offset=0):
            return super().rotate(q, k, 3)[0] * 0 + q, k

    return Faulty


@fault("position", "rope", "turns_by_distance", says="differ by")
def turns_keys_alone(position):
    class Faulty(position):
        def rotate(self, q, k, offset=0):
            return q, super().rotate(q, k, offset)[1]

    return Faulty


@fault("position", "rope", "turns_by_distance", says="differ by")
def turns_queries_the_other_way(position):
    class Faulty(position):
        def rotate(self, q, k, offset=0):
            back = mx.fast.rope(q, q.shape[-1], traditional=False, base=self.theta, scale=-1.0, offset=offset)
            return back, super().rotate(q, k, offset)[1]

    return Faulty


# Layouts ----------------------------------------------------------------------------------------------------------------


@fault("layout", "pre_norm", "cache_counts_tokens", says="offset is not")
def calls_its_mixer_twice(layout):
    class Faulty(layout):
        def __call__(self, x, attention, ffn):
            if attention is not None:
                attention(x)
            return super().__call__(x, attention, ffn)

    return Faulty


@fault("layout", "pre_norm", "gradients_reach_everything_without_ffn", says="no gradient reaches layout.ffn_norm")
@fault("layout", "post_norm", "gradients_reach_everything_without_attention", says="layout.attention_norm")
def has_norms_for_what_is_not_there(layout):
    class Faulty(layout):
        def __init__(self, config, options, attention=True, ffn=True):
            super().__init__(config, options)

    return Faulty


@fault("layout", "pre_norm", "sublayers_are_called_once", says=r"called \[1, 2\] times")
@fault("layout", "post_norm", "sublayers_are_called_once", says=r"called \[1, 2\] times")
def calls_its_ffn_twice(layout):
    class Faulty(layout):
        def __call__(self, x, attention, ffn):
            return super().__call__(x, attention, None if ffn is None else lambda h: (ffn(h) + ffn(h)) / 2)

    return Faulty


def wired(*checks, base="pre_norm", says="differ by"):
    """Note a function that stands in place of a layout's `residual`."""

    def add(change):
        def apply(layout):
            def residual(self, x, sublayer, name):
                return change(self, x, sublayer, self[f"{name}_norm"])

            return type("Faulty", (layout,), {"residual": residual})

        apply.__name__ = change.__name__
        fault("layout", base, *checks, says=says)(apply)
        return change

    return add


@wired("zeros_add_nothing")
@wired("zeros_add_nothing", base="post_norm")
def has_no_residual(self, x, sublayer, norm):
    return self.dropout(sublayer(norm(x)))


@wired("zeros_add_nothing")
def doubles_x(self, x, sublayer, norm):
    return 2 * x + self.dropout(sublayer(norm(x)))


@fault("layout", "pre_norm", "zeros_add_nothing", says="differ by")
def adds_its_mixer_twice(layout):
    class Faulty(layout):
        def __call__(self, x, attention, ffn):
            y = super().__call__(x, attention, ffn)
            return y if attention is None or ffn is None else y + self.dropout(attention(self.attention_norm(x)))

    return Faulty


@wired("dropout_is_for_training", says="drops nothing")
def never_drops(self, x, sublayer, norm):
    return x + sublayer(norm(x))


@wired("dropout_is_for_training", says="drops the same")
def drops_the_same_each_time(self, x, sublayer, norm):
    keep = mx.random.bernoulli(1 - self.dropout._p_1 if self.training else 1.0, x.shape, key=mx.random.key(3))
    return x + sublayer(norm(x)) * keep


@wired("dropout_is_for_training")
def scales_by_what_it_would_drop(self, x, sublayer, norm):
    return x + self.dropout(sublayer(norm(x))) * self.dropout._p_1


@fault("layout", "pre_norm", "says_whether_it_normalises", says="differ by")
def says_that_it_normalises(layout):
    return type("Faulty", (layout,), {"normalised": True})


@fault("layout", "post_norm", "says_whether_it_normalises", says="normalised is 'yes'")
def says_it_in_words(layout):
    return type("Faulty", (layout,), {"normalised": "yes"})


@fault("layout", "pre_norm", "past_ignores_future", says="differ by")
def looks_ahead(layout):
    class Faulty(layout):
        def __call__(self, x, attention, ffn):
            y = super().__call__(x, attention, ffn)
            return y + 0.1 * y.mean(axis=1, keepdims=True)

    return Faulty


@fault("layout", "pre_norm", "model_round_trips", says="normalised")
def does_not_say_whether_it_normalises(layout):
    class Faulty(nn.Module):
        def __init__(self, config, attention=True, ffn=True):
            super().__init__()
            self.inner = layout(config, None, attention, ffn)

        def __call__(self, x, attention, ffn):
            return self.inner(x, attention, ffn)

    return Faulty


# Architectures ----------------------------------------------------------------------------------------------------------


def factory(sizes=None, **changes):
    """A function in place of an architecture, with `changes` of its config, and other sizes."""

    def made(found):
        def faulty(*, d_model: int = 64):
            return attrs.evolve(found(**found.sizes["tiny"]), **changes)

        faulty.sizes = {"tiny": {}} if sizes is None else sizes
        return faulty

    return made


@fault("config", "llama", "has_a_tiny_size", says="has no size 'tiny'")
def has_no_tiny_size(found):
    return factory(sizes={"7b": {}})(found)


@fault("config", "llama", "has_a_tiny_size", says="tiny has 256,074,048 parameters")
def has_a_large_tiny_size(found):
    return factory(vocab_size=2_000_000)(found)


@fault("config", "llama", "every_size_is_a_model", says="width|unknown argument")
def has_a_size_with_another_argument(found):
    return factory(sizes={"tiny": {}, "7b": {"width": 4096}})(found)


@fault("config", "gpt", "unknown_arguments_are_refused", says="is accepted")
def takes_any_argument(found):
    def faulty(**numbers):
        return found(**found.sizes["tiny"])

    faulty.sizes = {"tiny": {}}
    return faulty


@fault("config", "gpt", "configs_come_again", says="two calls differ")
def counts_its_calls(found):
    calls = []

    def faulty():
        calls.append(1)
        return attrs.evolve(found(**found.sizes["tiny"]), vocab_size=100 + len(calls))

    faulty.sizes = {"tiny": {}}
    return faulty


@attrs.frozen(kw_only=True)
class Larger(ModelConfig):
    """A config with a number that no file holds."""

    width: int = 3


@fault("config", "gpt", "config_round_trips_when_tiny", says="width: unknown key")
def returns_a_config_of_its_own(found):
    def faulty():
        config = found(**found.sizes["tiny"])
        return Larger(**{field.alias: getattr(config, field.name) for field in attrs.fields(ModelConfig)})

    faulty.sizes = {"tiny": {}}
    return faulty


# Scalings ---------------------------------------------------------------------------------------------------------------


def scaling_fault(check, says):
    """Note a function of the frequencies and the length that stands in place of a scaling's."""

    def add(change):
        def apply(scaling):
            class Faulty(scaling):
                def frequencies(self, length):
                    found, factor = super().frequencies(length)
                    return change(found, length), factor

            return Faulty

        apply.__name__ = change.__name__
        return fault("scaling", "llama3", check, says=says)(apply)

    return add


@scaling_fault("frequencies_fit", "9 numbers for 8 pairs")
def has_a_pair_too_many(frequencies, length):
    return [*frequencies, 0.0]


@scaling_fault("waves_are_only_stretched", "turn faster at 1 tokens")
def squeezes_waves(frequencies, length):
    return [2 * each for each in frequencies]


@scaling_fault("says_what_it_depends_on", "by_length is False, but the frequencies change")
def depends_on_the_length(frequencies, length):
    return [each / length for each in frequencies]
