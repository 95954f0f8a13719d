"""How rotary wavelengths are stretched to sequences longer than those a model was trained with."""

import math

import attrs
from attrs import validators

from lmx_core.components.masks import some_tokens
from lmx_core.config import at_least_one, exact_types
from lmx_core.errors import ConfigError

Frequencies = tuple[list[float], float]
"""By what each pair turns from one position to the next, and a factor of what is turned: a score gets its square."""


@attrs.frozen(kw_only=True)
class Rotary:
    """What is turned, before it is scaled."""

    width: int
    """Numbers of a head that are turned."""
    head_dim: int
    theta: float
    max_seq_len: int

    def frequencies(self, theta: float | None = None) -> list[float]:
        """`theta ** (-2i / width)`, for each pair."""
        base = self.theta if theta is None else theta
        return [base ** (-2 * i / self.width) for i in range(self.width // 2)]


class ScalingBase:
    """No scaling: `theta ** (-2i / n)` for pair i of n numbers. A scaling overrides `frequencies`."""

    by_length: bool = False
    """Whether they depend on how long the sequence is by now."""
    horizon: int | None = None
    """Where that changes at one length: the longest sequence before."""
    score_factor: float = 1.0
    """Of whole scores, for a mixer that turns a part of each head alone: what is turned has its own factor already."""

    def __init__(self, rotary: Rotary) -> None:
        self.rotary = rotary

    def frequencies(self, length: int) -> Frequencies:
        """Those of a sequence of so many tokens."""
        return self.rotary.frequencies(), 1.0


stretch = attrs.field(validator=validators.ge(1))


@attrs.frozen(kw_only=True, field_transformer=exact_types)
class LinearOptions:
    """Options of `scaling="linear"`."""

    factor: float = stretch
    """How many times longer sequences become."""


class LinearScaling(ScalingBase):
    """Position interpolation, arXiv:2306.15595: all frequencies divided by `factor`."""

    Options = LinearOptions

    def __init__(self, rotary: Rotary, options: LinearOptions) -> None:
        super().__init__(rotary)
        self.factor = options.factor

    def frequencies(self, length: int) -> Frequencies:
        return [each / self.factor for each in self.rotary.frequencies()], 1.0


@attrs.frozen(kw_only=True, field_transformer=exact_types)
class DynamicOptions:
    """Options of `scaling="dynamic"`."""

    factor: float | None = attrs.field(default=None, validator=validators.optional(validators.ge(1)))
    """How many times longer sequences become;"""
    alpha: float | None = attrs.field(default=None, validator=validators.optional(validators.gt(0)))
    """or a fixed growth of the base, whatever the length: `theta * alpha ** (n / (n - 2))` (Hunyuan)."""


class DynamicScaling(ScalingBase):
    """NTK-aware scaling whose base grows with the sequence, once it is longer than `max_seq_len` tokens (M).

    `theta * (factor * length / M - factor + 1) ** (n / (n - 2))`. What a cache holds stays as it was turned at its time, as
    in transformers: token by token, a sequence of more than M tokens is not what it is in one pass.
    """

    Options = DynamicOptions

    def __init__(self, rotary: Rotary, options: DynamicOptions) -> None:
        super().__init__(rotary)
        self.factor, self.alpha = options.factor or 1.0, options.alpha
        if (options.factor is None) == (options.alpha is None):
            raise ConfigError(
                f"scaling 'dynamic' takes a factor or an alpha, got factor={options.factor} and alpha={options.alpha}"
            )
        self.by_length = options.alpha is None
        if rotary.width <= 2:
            raise ConfigError(
                f"scaling 'dynamic' needs more than one pair of numbers a head, got {rotary.width} numbers"
            )

    def frequencies(self, length: int) -> Frequencies:
        longest = max(length, self.rotary.max_seq_len) / self.rotary.max_seq_len
        growth = self.factor * longest - (self.factor - 1) if self.alpha is None else self.alpha
        return self.rotary.frequencies(self.rotary.theta * growth ** (self.rotary.width / (self.rotary.width - 2))), 1.0


@attrs.frozen(kw_only=True, field_transformer=exact_types)
class Llama3Options:
    """Options of `scaling="llama3"`."""

    factor: float = attrs.field(default=8.0, validator=validators.ge(1))
    low_freq_factor: float = attrs.field(default=1.0, validator=validators.gt(0))
    high_freq_factor: float = attrs.field(default=4.0, validator=validators.gt(0))
    original_max_seq_len: int = attrs.field(default=8192, validator=at_least_one)
    """Tokens of the sequences it was trained with."""


class Llama3Scaling(ScalingBase):
    """That of Llama 3.1 (arXiv:2407.21783): long waves divided by `factor`, short ones left alone, and between them both.

    A wave is long beyond `original_max_seq_len / low_freq_factor` tokens, short below `... / high_freq_factor`.
    """

    Options = Llama3Options

    def __init__(self, rotary: Rotary, options: Llama3Options) -> None:
        super().__init__(rotary)
        self.options = options
        if options.high_freq_factor < options.low_freq_factor:
            raise ConfigError(
                f"high_freq_factor={options.high_freq_factor} is below low_freq_factor={options.low_freq_factor}"
            )

    def frequencies(self, length: int) -> Frequencies:
        return [self._scaled(each) for each in self.rotary.frequencies()], 1.0

    def _scaled(self, frequency: float) -> float:
        low, high = self.options.low_freq_factor, self.options.high_freq_factor
        waves = self.options.original_max_seq_len * frequency / (2 * math.pi)
        if waves <= low or waves >= high:
            return frequency / self.options.factor if waves <= low else frequency
        smooth = (waves - low) / (high - low)
        return (1 - smooth) * frequency / self.options.factor + smooth * frequency


@attrs.frozen(kw_only=True, field_transformer=exact_types)
class YarnOptions:
    """Options of `scaling="yarn"`."""

    factor: float = stretch
    """How many times longer sequences become."""
    original_max_seq_len: int | None = attrs.field(default=None, validator=some_tokens)
    """Tokens of the sequences it was trained with; `max_seq_len` unless given."""
    beta_fast: float = attrs.field(default=32.0, validator=validators.gt(0))
    """Pairs that turn more often than this in the original length are left alone."""
    beta_slow: float = attrs.field(default=1.0, validator=validators.gt(0))
    """Pairs that turn less often than this are interpolated wholly."""
    attention_factor: float | None = attrs.field(default=None, validator=validators.optional(validators.gt(0)))
    """Factor of what is turned; unless given that of mscale, or else `0.1 ln(factor) + 1`."""
    mscale: float | None = None
    mscale_all_dim: float | None = None
    """Where both are given (DeepSeek): `m(mscale) / m(mscale_all_dim)`, m(x) being `0.1 x ln(factor) + 1`. Whole scores of
    a mixer that turns a part of each head, as `mla`, are multiplied by `m(mscale_all_dim) ** 2`."""
    truncate: bool = True
    """Whether the ends of the ramp between the two are whole pairs."""


class YarnScaling(ScalingBase):
    """YaRN, arXiv:2309.00071: slow pairs are interpolated, fast ones left alone, and scores made sharper."""

    Options = YarnOptions

    def __init__(self, rotary: Rotary, options: YarnOptions) -> None:
        super().__init__(rotary)
        self.options = options
        self.score_factor = mscale(options.factor, options.mscale_all_dim or 0.0) ** 2
        if rotary.theta <= 1:
            raise ConfigError(f"scaling 'yarn' needs waves that grow longer: theta={rotary.theta} is not above 1")

    def frequencies(self, length: int) -> Frequencies:
        low, high = self._ramp()
        factor, scaled = self.options.factor, list[float]()
        for i, each in enumerate(self.rotary.frequencies()):
            share = min(max((i - low) / (high - low), 0.0), 1.0)
            scaled.append(each / factor * share + each * (1 - share))
        return scaled, self.attention_factor()

    def _ramp(self) -> tuple[float, float]:
        options, width = self.options, self.rotary.width
        original = options.original_max_seq_len or self.rotary.max_seq_len

        def pair(turns: float) -> float:
            return width * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(self.rotary.theta))

        low, high = pair(options.beta_fast), pair(options.beta_slow)
        if options.truncate:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, width - 1)
        return low, high if high != low else high + 0.001

    def attention_factor(self) -> float:
        options = self.options
        if options.attention_factor is not None:
            return options.attention_factor
        if options.mscale and options.mscale_all_dim:
            return mscale(options.factor, options.mscale) / mscale(options.factor, options.mscale_all_dim)
        return mscale(options.factor)


def mscale(factor: float, scale: float = 1.0) -> float:
    """`0.1 scale ln(factor) + 1`, by which YaRN sharpens scores."""
    return 0.1 * scale * math.log(factor) + 1 if factor > 1 else 1.0


@attrs.frozen(kw_only=True, field_transformer=exact_types)
class LongRopeOptions:
    """Options of `scaling="longrope"`."""

    short_factor: tuple[float, ...] = attrs.field(validator=validators.deep_iterable(validators.gt(0)))
    """By what each pair's frequency is divided in sequences of at most `original_max_seq_len` tokens,"""
    long_factor: tuple[float, ...] = attrs.field(validator=validators.deep_iterable(validators.gt(0)))
    """and in longer ones."""
    original_max_seq_len: int | None = attrs.field(default=None, validator=some_tokens)
    """Tokens of the sequences it was trained with; `max_seq_len` unless given."""
    factor: float | None = attrs.field(default=None, validator=validators.optional(validators.gt(0)))
    """How many times longer sequences become; `max_seq_len / original_max_seq_len` unless given."""
    attention_factor: float | None = attrs.field(default=None, validator=validators.optional(validators.gt(0)))
    """Factor of what is turned; `sqrt(1 + ln(factor) / ln(original_max_seq_len))` unless given."""


class LongRopeScaling(ScalingBase):
    """LongRoPE, arXiv:2402.13753: factors that were searched for, of short and of long sequences.

    When an answer becomes long, `generate` reads all that came before again.
    """

    Options = LongRopeOptions
    by_length = True

    def __init__(self, rotary: Rotary, options: LongRopeOptions) -> None:
        super().__init__(rotary)
        self.horizon = self.original = options.original_max_seq_len or rotary.max_seq_len
        self.factors = options.short_factor, options.long_factor
        if self.original < 2:
            raise ConfigError(f"original_max_seq_len={self.original} is no length to grow from")
        for name, factors in zip(("short_factor", "long_factor"), self.factors, strict=True):
            if len(factors) != rotary.width // 2:
                raise ConfigError(f"{name} has {len(factors)} numbers for {rotary.width // 2} pairs")
        factor = options.factor or rotary.max_seq_len / self.original
        usual = math.sqrt(1 + math.log(factor) / math.log(self.original)) if factor > 1 else 1.0
        self.attention_factor = options.attention_factor or usual

    def frequencies(self, length: int) -> Frequencies:
        factors = self.factors[length > self.original]
        pairs = zip(self.rotary.frequencies(), factors, strict=True)
        return [frequency / factor for frequency, factor in pairs], self.attention_factor


@attrs.frozen(kw_only=True, field_transformer=exact_types)
class ProportionalOptions:
    """Options of `scaling="proportional"`."""

    factor: float = attrs.field(default=1.0, validator=validators.ge(1))
    """By what the frequencies are divided."""
    fraction: float = attrs.field(default=1.0, validator=[validators.ge(0), validators.le(1)])
    """Share of the pairs that turn at all."""


class ProportionalScaling(ScalingBase):
    """That of Gemma 4's global layers: the first pairs turn as in the whole head, the others not at all."""

    Options = ProportionalOptions

    def __init__(self, rotary: Rotary, options: ProportionalOptions) -> None:
        super().__init__(rotary)
        self.options = options

    def frequencies(self, length: int) -> Frequencies:
        turning = int(self.options.fraction * self.rotary.width // 2)
        frequencies = [each / self.options.factor for each in self.rotary.frequencies()]
        return frequencies[:turning] + [0.0] * (len(frequencies) - turning), 1.0
