"""What goes wrong in mixers. Each fault can be given to any mixer that takes a position."""

import functools
import threading

import mlx.core as mx
from mlx import nn

from lmx_core.components.positions import PositionBase
from lmx_core.testing import SMALL

from .faults import fault


def mixer_fault(*checks, says=""):
    """Note a function that computes in a mixer's place: `(self, forward, x, mask, cache, position) -> y`."""

    def add(call):
        @functools.wraps(call)
        def apply(mixer):
            class Faulty(mixer):
                def __call__(self, x, mask=None, cache=None, *, position=None):
                    def forward(x=x, mask=mask, position=self._position if position is None else position):
                        return mixer.__call__(self, x, mask, cache, position=position)[0]

                    return call(self, forward, x, mask, cache, position), cache

            return Faulty

        return fault("attention", None, *checks, says=says)(apply)

    return add


def built_with(*checks, says=""):
    """Note a function that changes a mixer after it was built."""

    def add(change):
        @functools.wraps(change)
        def apply(mixer):
            class Faulty(mixer):
                def __init__(self, config, *options):
                    super().__init__(config, *options)
                    change(self)

            return Faulty

        return fault("attention", None, *checks, says=says)(apply)

    return add


@mixer_fault("past_ignores_future", "past_ignores_future_with_rotate", says="differ by")
def looks_ahead(self, forward, x, mask, cache, position):
    return forward() + 0.1 * x.mean(axis=1, keepdims=True)


@mixer_fault("past_ignores_future", says="differ by")
def looks_ahead_in_training(self, forward, x, mask, cache, position):
    return forward() + (0.1 * x[:, -1:] if self.training else 0.0)


@mixer_fault("training_changes_nothing", says="differ by")
def scales_in_training(self, forward, x, mask, cache, position):
    return forward() * (1.1 if self.training else 1.0)


@mixer_fault("past_ignores_future", "past_ignores_future_with_rotate", says="differ by")
def sees_all_once_its_window_is_full(self, forward, x, mask, cache, position):
    """In place of `i - j < 512` it has `|i - j| < 512`."""
    near = mx.abs(mx.arange(x.shape[1])[:, None] - mx.arange(x.shape[1])) < 512
    return forward(mask=near if cache is None and x.shape[1] > 512 else mask)


@mixer_fault("past_ignores_future", says="differ by")
def sees_all_in_long_training(self, forward, x, mask, cache, position):
    return forward(mask=None if self.training and x.shape[1] > 512 else mask)


class Moved(PositionBase):
    """A position whose offsets after the first token are one too high."""

    def __init__(self, position):
        super().__init__(SMALL)
        self.position = position

    def rotate(self, q, k, offset=0):
        return self.position.rotate(q, k, offset + 1 if offset else 0)


@mixer_fault("cache_equals_one_pass_with_rotate", says="differ by")
def is_one_token_off_after_a_cache(self, forward, x, mask, cache, position):
    return forward(position=Moved(position))


@mixer_fault("cache_equals_one_pass_with_rotate", "cache_equals_one_pass_with_bias", says="differ by")
def drops_the_position_after_a_cache(self, forward, x, mask, cache, position):
    return forward(position=PositionBase(SMALL) if cache is not None and cache.offset else position)


@mixer_fault(
    "position_makes_a_difference_with_rotate", "position_makes_a_difference_with_bias", says="without a position"
)
def drops_the_position(self, forward, x, mask, cache, position):
    return forward(position=PositionBase(SMALL))


class Half(PositionBase):
    """A position that turns queries alone, or keys alone."""

    def __init__(self, position, turns):
        super().__init__(SMALL)
        self.position, self.turns = position, turns

    def rotate(self, q, k, offset=0):
        turned = self.position.rotate(q, k, offset)
        return tuple(new if turns else old for new, old, turns in zip(turned, (q, k), self.turns, strict=True))

    def bias(self, queries, keys):
        return self.position.bias(queries, keys)


@mixer_fault("distance_alone_counts_with_rotate", says="differ by")
def turns_queries_alone(self, forward, x, mask, cache, position):
    return forward(position=Half(position, (True, False)))


@mixer_fault("distance_alone_counts_with_rotate", says="differ by")
def turns_keys_alone(self, forward, x, mask, cache, position):
    return forward(position=Half(position, (False, True)))


@mixer_fault("distance_alone_counts_with_rotate", says="differ by")
def turns_its_output(self, forward, x, mask, cache, position):
    heads = forward()[:, None]
    return position.rotate(heads, heads, 0 if cache is None else cache.offset)[0][:, 0]


@mixer_fault("rows_are_independent", says="differ by")
def lets_rows_talk(self, forward, x, mask, cache, position):
    y = forward()
    return y + 0.1 * y.mean(axis=0)


@built_with("gradients_reach_everything", says="no gradient reaches dead")
def has_a_dead_parameter(self):
    self.dead = mx.ones((3,))


@mixer_fault("gradients_reach_everything", says="is not finite")
def has_a_gradient_that_is_no_number(self, forward, x, mask, cache, position):
    return forward() + mx.sqrt(mx.square(x).sum(axis=-1, keepdims=True) * 0)


@mixer_fault("gradients_reach_everything", says="some positions of the input")
def stops_the_gradient_of_its_input(self, forward, x, mask, cache, position):
    return forward(mx.stop_gradient(x))


@mixer_fault("gradients_are_slopes", "gradients_are_slopes_with_rotate", says="the slope is")
def has_half_a_gradient(self, forward, x, mask, cache, position):
    y = forward()
    return 0.5 * y + 0.5 * mx.stop_gradient(y)


@mixer_fault("keeps_shape_and_dtype", says="bfloat16 became .*float32")
def computes_in_float32(self, forward, x, mask, cache, position):
    return forward().astype(mx.float32)


@mixer_fault("keeps_shape_and_dtype", says="bfloat16 became .*float32")
def computes_in_float32_with_a_cache(self, forward, x, mask, cache, position):
    return forward() if cache is None else forward().astype(mx.float32)


@mixer_fault("nothing_stays_behind", says="differ by")
def keeps_a_state(self, forward, x, mask, cache, position):
    y = forward()
    before = vars(self).get("_before", 0.0)
    object.__setattr__(self, "_before", y.mean())
    return y + 0.1 * before


@mixer_fault("nothing_stays_behind", says="differ by")
def draws_random_numbers(self, forward, x, mask, cache, position):
    y = forward()
    return y + 1e-3 * mx.random.normal(y.shape)


@mixer_fault("input_is_left_alone", says="differ by")
def writes_into_its_input(self, forward, x, mask, cache, position):
    y = forward()
    x[..., 0] = 0.0
    return y


@mixer_fault(
    "a_boolean_mask_is_honoured",
    "a_boolean_mask_is_honoured_with_bias",
    "documents_of_a_row_are_apart",
    "documents_of_a_row_are_apart_with_rotate",
    says="differ by",
)
def ignores_a_boolean_mask(self, forward, x, mask, cache, position):
    return forward(mask="causal" if isinstance(mask, mx.array) else mask)


@mixer_fault("a_boolean_mask_is_honoured", says="differ by")
def ignores_a_boolean_mask_after_a_cache(self, forward, x, mask, cache, position):
    return forward(mask=None if isinstance(mask, mx.array) and cache is not None and cache.offset else mask)


@mixer_fault("a_boolean_mask_is_honoured", says="differ by")
def ignores_what_a_mask_hides_after_a_cache(self, forward, x, mask, cache, position):
    return forward(mask="causal" if isinstance(mask, mx.array) and cache is not None and cache.offset else mask)


@mixer_fault("a_boolean_mask_is_honoured", "a_boolean_mask_is_honoured_with_rotate", says="differ by")
def reads_one_mask_for_all_rows(self, forward, x, mask, cache, position):
    return forward(mask=mask[0, 0] if isinstance(mask, mx.array) and mask.ndim == 4 else mask)


@mixer_fault("a_boolean_mask_is_honoured", "a_boolean_mask_is_honoured_with_bias", says="differ by")
def takes_no_mask_for_a_causal_one(self, forward, x, mask, cache, position):
    return forward(mask="causal" if mask is None and x.shape[1] > 1 else mask)


@mixer_fault("documents_of_a_row_are_apart", "documents_of_a_row_are_apart_with_bias", says="differ by")
def looks_back_beyond_a_document(self, forward, x, mask, cache, position):
    return forward() + 0.1 * mx.pad(x, [(0, 0), (1, 0), (0, 0)])[:, :-1]


@mixer_fault("documents_of_a_row_are_apart_with_rotate", says="eval")
def asks_where_documents_stand(self, forward, x, mask, cache, position):
    if cache is not None:
        mx.array(cache.offset).tolist()
    return forward()


class Leaking(nn.Module):
    """What is added to values has no effect, but for the gradient."""

    def __call__(self, y):
        before = mx.pad(y, [(0, 0), (1, 0), (0, 0)])[:, :-1]
        return y + 0.1 * (before - mx.stop_gradient(before))


@mixer_fault("documents_of_a_row_are_apart", says="differ by")
def has_gradients_beyond_a_document(self, forward, x, mask, cache, position):
    return Leaking()(forward())


@mixer_fault("reports_are_scalars", says="differ by")
def adds_to_its_report(self, forward, x, mask, cache, position):
    self._report = {"mean": mx.abs(x).mean() + self.get("_report", {}).get("mean", 0.0)}
    return forward()


@mixer_fault("reports_are_scalars", says="a report is a scalar")
def reports_a_row(self, forward, x, mask, cache, position):
    self._report = {"mean": x.mean(axis=(1, 2))}
    return forward()


@built_with("weights_round_trip", says="differ by")
def hides_a_parameter(self):
    self._hidden = mx.random.normal((SMALL.d_model,))
    self.o_proj = Shifted(self.o_proj, self._hidden)


class Shifted(nn.Module):
    def __init__(self, inner, shift):
        super().__init__()
        self.inner, self._shift = inner, shift

    def __call__(self, x):
        return self.inner(x) + self._shift


@built_with("model_round_trips", says="differ by")
def hides_a_parameter_of_a_model(self):
    self.o_proj = Shifted(self.o_proj, mx.random.normal((SMALL.d_model,)))


@built_with("builds_lazily", says="before one was used")
def computes_its_parameters_at_once(self):
    mx.eval(self.parameters())


@mixer_fault("compiled_equals_eager", says="eval")
def asks_for_a_value(self, forward, x, mask, cache, position):
    return forward() * (1.0 if x.mean().item() < 100 else 2.0)


@mixer_fault("compiled_equals_eager", says="If you are compiling a function")
def keeps_what_it_was_traced_with(self, forward, x, mask, cache, position):
    if "_table" not in vars(self):
        object.__setattr__(self, "_table", mx.cos(mx.arange(300.0)) + 0 * x.sum())
    return forward() + self._table[: x.shape[1], None]


@mixer_fault("long_sequences_are_no_different", says="differ by")
def goes_wrong_beyond_256_tokens(self, forward, x, mask, cache, position):
    y = forward()
    return mx.concatenate([y[:, :256], 1.01 * y[:, 256:]], axis=1)


@mixer_fault("quantised_runs", says="matmul")
def reads_a_weight_itself(self, forward, x, mask, cache, position):
    return forward() + 0.1 * x @ self.q_proj.weight.T


@built_with("quantised_runs", says="differ by")
def turns_a_weight_that_may_be_quantised(self):
    self.q_proj = Negated(self.q_proj)


@mixer_fault("quantised_runs", says="differ by")
def loses_one_position_when_quantised(self, forward, x, mask, cache, position):
    y = forward()
    return y if isinstance(self.o_proj, nn.Linear) else mx.concatenate([y[:, :-1], 9 * y[:, -1:]], axis=1)


class Negated(nn.Linear):
    """Its quantised form has the other sign."""

    def __init__(self, inner):
        nn.Module.__init__(self)
        for name, weight in inner.parameters().items():
            self[name] = weight

    def to_quantized(self, *args, **options):
        other = nn.Linear(*self.weight.shape[::-1], bias="bias" in self)
        other.update({name: -weight for name, weight in self.parameters().items()})
        return other.to_quantized(*args, **options)


@built_with("copies_are_independent", says="cannot pickle")
def keeps_what_cannot_be_copied(self):
    object.__setattr__(self, "_lock", threading.Lock())


def is_its_own_copy(mixer):
    return type("Faulty", (mixer,), {"__deepcopy__": lambda self, memo: self})


fault("attention", None, "copies_are_independent", says="differ by")(is_its_own_copy)
