"""Cross-entropy and log-probabilities of tokens, from hidden states, without all logits at once."""

from typing import Any

import attrs
import mlx.core as mx
from mlx.core import array

from lmx_core.chunks import (
    after,
    custom,
    flat,
    head_of,
    logits_of,
    logits_with,
    parts_of,
    pulled_back,
    scaled_gradients,
    swept,
)
from lmx_core.shapes import Bool, Float, Int


@attrs.frozen
class Sums:
    """Over the targets that count. No gradient flows through `nats` and `z`."""

    loss: array
    """What is made smaller."""
    nats: array
    """Cross-entropy alone."""
    z: array
    """What the z-loss adds."""


def cross_entropy(
    model: Any,
    hidden: Float[array, "B L D"],
    targets: Int[array, "B L"],
    mask: Bool[array, "B L"] | None = None,
    *,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    chunk: int | None = None,
) -> Sums:
    """What `logits_cross_entropy` computes of `model.logits(hidden)`, of `chunk` tokens at once.

    The gradient is made on the way, so that every logit is computed once and only one chunk of them is held; for the loss
    alone `hidden_logps` is cheaper. Where `mask` is False hidden states and targets, which may be any numbers there, have
    no part in it, and the gradient is exactly 0.
    """
    chosen = {"label_smoothing": label_smoothing, "z_loss": z_loss}
    x, t, m = flat(hidden, targets, mask)
    parts = parts_of(model, x, chunk)

    def slopes(parameters: Any, x: array, part: slice) -> Any:
        logits = logits_with(model, parameters, x)
        sums, by_logits = _with_slopes(logits, t[part], None if m is None else m[part], **chosen)
        return sums, pulled_back(lambda p, x: logits_with(model, p, x), (parameters, x), by_logits)

    def plain(parameters: Any, x: array) -> array:
        return logits_cross_entropy(logits_with(model, parameters, x), t, m, **chosen).loss

    def summed(parameters: Any, x: array) -> Any:
        return swept(slopes, parameters, x, parts)

    def back(primals: Any, cotangents: Any, outputs: Any) -> Any:
        return scaled_gradients(plain, outputs[1])(*primals, cotangents[0][0])

    (loss, nats, z), _ = custom(summed, back)(head_of(model), x)
    return Sums(loss, mx.stop_gradient(nats), mx.stop_gradient(z))


def logits_cross_entropy(
    logits: Float[array, "*N V"],
    targets: Int[array, "*N"],
    mask: Bool[array, "*N"] | None = None,
    *,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
) -> Sums:
    """In float32, summed over the targets: `(1 - e) * -log p(target) + e * mean(-log p)` with e the label smoothing, mean
    over the vocabulary, and `z_loss * logsumexp(logits)^2` (arXiv:2204.02311).
    """
    nats = -token_logps(logits, targets)
    loss, z = nats, mx.zeros_like(nats)
    if label_smoothing or z_loss:
        logits = logits.astype(mx.float32)
        hit = _at(logits, targets)
        z = z_loss * mx.square(nats + hit)
        loss = nats + label_smoothing * (hit - logits.mean(-1)) + z
    return Sums(_total(loss, mask), mx.stop_gradient(_total(nats, mask)), mx.stop_gradient(_total(z, mask)))


def token_logps(logits: Float[array, "*N V"], targets: Int[array, "*N"]) -> Float[array, "*N"]:
    """The logarithm of each target's probability, in float32."""
    if fused := _fused():
        return -fused(logits, targets)
    logits = logits.astype(mx.float32)
    return _at(logits, targets) - mx.logsumexp(logits, axis=-1)


def hidden_logps(
    model: Any,
    hidden: Float[array, "B L D"],
    targets: Int[array, "B L"],
    *,
    temperature: float = 1.0,
    chunk: int | None = None,
) -> Float[array, "B L"]:
    """`token_logps(model.logits(hidden) / temperature, targets)`, of `chunk` tokens at once; the gradient computes the
    logits again.
    """
    x, t, _ = flat(hidden, targets, None)
    parts = parts_of(model, x, chunk)

    def found_in(logits: array, part: slice) -> array:
        return token_logps(logits if temperature == 1 else logits.astype(mx.float32) / temperature, t[part])

    def logps(parameters: Any, x: array) -> array:
        found: list[array] = []
        for part in parts:
            found.append(found_in(logits_with(model, parameters, after(x[part], found[-1:])), part))
        return mx.concatenate(found)

    def back(primals: Any, cotangent: array, outputs: Any) -> Any:
        def slopes(parameters: Any, x: array, part: slice) -> Any:
            def weighted(parameters: Any, x: array) -> array:
                return (found_in(logits_with(model, parameters, x), part) * cotangent[part]).sum()

            gradients: Any = mx.grad(weighted, argnums=(0, 1))
            return (), gradients(parameters, x)

        return swept(slopes, primals[0], primals[1], parts)[1]

    found = found_in(logits_of(model, x), parts[0]) if len(parts) == 1 else custom(logps, back)(head_of(model), x)
    return found.reshape(targets.shape)


def token_entropies(logits: Float[array, "*N V"]) -> Float[array, "*N"]:
    """`-sum(p log p)` of each distribution, in nats, in float32."""
    logps = logits.astype(mx.float32)
    logps = logps - mx.logsumexp(logps, axis=-1, keepdims=True)
    return -mx.where(logps > -mx.inf, mx.exp(logps) * logps, 0).sum(-1)


def sequence_sums(values: Float[array, "B L"], mask: Bool[array, "B L"]) -> Float[array, " B"]:
    """Of each row, over what the mask lets through."""
    return mx.where(mask, values, 0).sum(-1)


def sequence_means(values: Float[array, "B L"], mask: Bool[array, "B L"]) -> Float[array, " B"]:
    """The same, by how many these are; 0 where there are none."""
    return sequence_sums(values, mask) / mx.maximum(mask.sum(-1), 1)


def _fused() -> Any:
    """MLX's kernel, which sums in float32 whatever the logits are, where it has one: mlx 0.31 lacks it, and a CPU."""
    return getattr(mx.fast, "cross_entropy", None) if mx.default_device() == mx.Device(mx.gpu) else None


def _with_slopes(
    logits: array, targets: array, mask: array | None, *, label_smoothing: float, z_loss: float
) -> tuple[Any, array]:
    """`logits_cross_entropy` as a tuple, and its gradient by the logits. Without a kernel for it exponentials are what takes
    time: here each is computed once.
    """
    if _fused():
        return _by_kernel(logits, targets, mask, label_smoothing=label_smoothing, z_loss=z_loss)
    dtype, size = logits.dtype, logits.shape[-1]
    logits = logits.astype(mx.float32)
    top, hit = logits.max(-1), _at(logits, targets)
    slopes = mx.softmax(logits, axis=-1)
    norm = top - mx.log(slopes.max(-1))  # the largest is 1 by the sum of exp(logits - top)
    nats, z = norm - hit, z_loss * mx.square(norm)
    loss, less = nats + z, mx.full(targets.shape, 1 - label_smoothing)
    if z_loss:
        slopes = slopes * (1 + 2 * z_loss * norm)[..., None]
    if label_smoothing:
        loss = loss + label_smoothing * (hit - logits.mean(-1))
        slopes = slopes - label_smoothing / size
    if mask is not None:
        slopes, less = slopes * mask[..., None], less * mask
    slopes = slopes.at[mx.arange(len(targets)), targets].subtract(less)
    sums = tuple(_total(each, mask) for each in (loss, nats, z))
    return sums, slopes.astype(dtype)


def _by_kernel(logits: array, targets: array, mask: array | None, **chosen: float) -> tuple[Any, array]:
    def loss(logits: array) -> tuple[array, ...]:
        found = logits_cross_entropy(logits, targets, mask, **chosen)
        return found.loss, found.nats, found.z

    return mx.value_and_grad(loss)(logits)


def _at(logits: array, targets: array) -> array:
    return mx.take_along_axis(logits, targets[..., None], -1)[..., 0]


def _total(values: array, mask: array | None) -> array:
    return (values if mask is None else mx.where(mask, values, 0)).sum()
