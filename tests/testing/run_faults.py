"""What goes wrong in optimizers, schedules and commands."""

import click
import mlx.core as mx
from mlx import optimizers as optim

from .faults import fault

# Optimizers -------------------------------------------------------------------------------------------------------------


def update(*checks, says):
    """Note a function `(self, step, gradient, parameter, state) -> parameter`, in place of an update of one tensor."""

    def add(change):
        def apply(optimizer):
            class Faulty(optimizer):
                def apply_single(self, gradient, parameter, state):
                    def step(gradient=gradient, parameter=parameter):
                        return optimizer.apply_single(self, gradient, parameter, state)

                    return change(self, step, gradient, parameter, state)

            return Faulty

        apply.__name__ = change.__name__
        return fault("optimizer", "adamw", *checks, says=says)(apply)

    return add


@update("lowers_a_loss", says="a loss of .* became")
def goes_up(self, step, gradient, parameter, state):
    return step(gradient=-gradient)


@update("every_parameter_moves", says="gain does not move")
def leaves_gains(self, step, gradient, parameter, state):
    return step() if parameter.ndim > 1 else parameter


@update("every_parameter_moves", says="became mlx.core.float32")
def makes_parameters_float32(self, step, gradient, parameter, state):
    return step(parameter=parameter.astype(mx.float32)).astype(mx.float32)


@update("honours_the_learning_rate", says="move the parameters by")
def has_a_rate_of_its_own(self, step, gradient, parameter, state):
    return parameter - 0.01 * gradient


@fault("optimizer", "adamw", "honours_the_learning_rate", says="does not start at learning_rate")
def starts_elsewhere(optimizer):
    class Faulty(optimizer):
        def __init__(self, config, options):
            super().__init__(config, options)
            self.learning_rate = 1e-5

    return Faulty


@update("saved_state_continues", says="differ by")
def keeps_a_state_beside_its_state(self, step, gradient, parameter, state):
    self.count = vars(self).get("count", 0) + 1
    return step(gradient=gradient) - 1e-3 * self.count


@fault("optimizer", "adamw", "saved_state_continues", says="init.. makes another state")
def grows_its_state(optimizer):
    class Faulty(optimizer):
        def apply_single(self, gradient, parameter, state):
            state["more"] = gradient
            return super().apply_single(gradient, parameter, state)

    return Faulty


@update("compiled_updates_are_the_same", says="differ by")
def counts_in_python(self, step, gradient, parameter, state):
    self.count = vars(self).get("count", 0) + 1
    return step() - 1e-3 * self.count


@fault("optimizer", "adamw", "compiled_updates_are_the_same", says="differ by")
def keeps_the_rate_it_was_traced_with(optimizer):
    class Faulty(optim.SGD):
        Options = optimizer.Options

        def __init__(self, config, options):
            super().__init__(config.learning_rate)

        learning_rate = property(
            lambda self: mx.array(self.rate), lambda self, value: vars(self).update(rate=float(value))
        )

    return Faulty


def fading(name, says, share):
    """Note an AdamW that takes another share of a weight."""

    def apply(optimizer):
        class Faulty(optimizer):
            def _taken(self, path, weight):
                return weight * share(self, weight)

        return Faulty

    apply.__name__ = name
    fault("optimizer", "adamw", "decays_weights_alone", says=says)(apply)


fading("never_decays", "takes 0 of a matrix, not 0.001", lambda self, weight: 0)
fading("decays_everything", "moves what has one axis", lambda self, weight: self.learning_rate * self.decay)
for wrong, share in {
    "grows_weights": lambda self: -self.learning_rate * self.decay,
    "decays_whatever_the_rate": lambda self: 0.01 * self.decay,
    "decays_by_half": lambda self: 0.5 * self.learning_rate * self.decay,
}.items():
    fading(wrong, "of a matrix, not", lambda self, weight, share=share: share(self) if weight.ndim > 1 else 0)


@fault("optimizer", "adamw", "decays_weights_alone", says="the class says decays = False")
def decays_and_denies_it(optimizer):
    class Faulty(optimizer):
        decays = False

    return Faulty


@fault("optimizer", "adamw", "rates_by_width_begin_at_1", says="where nothing has grown")
def is_slower_at_the_base_width(optimizer):
    class Faulty(optimizer):
        def mup_rate(self, path, weight, fan_in, fan_out):
            return 0.5 / fan_in

    return Faulty


@fault("optimizer", "sgd", "rates_by_width_begin_at_1", says="mup_rate of weight gives")
def has_rates_below_0(optimizer):
    class Faulty(optimizer):
        def mup_rate(self, path, weight, fan_in, fan_out):
            return 2 - fan_out

    return Faulty


# Schedules --------------------------------------------------------------------------------------------------------------


def rate(*checks, says):
    """Note a function `(self, rate, step, progress) -> rate`."""

    def add(change):
        def apply(schedule):
            class Faulty(schedule):
                def __call__(self, step, progress):
                    return change(self, super().__call__(step, progress), step, progress)

            return Faulty

        apply.__name__ = change.__name__
        return fault("schedule", "linear", *checks, says=says)(apply)

    return add


BETWEEN = "rates_are_between_0_and_the_peak"


@rate(BETWEEN, says="the rate at step .* learning_rate")
def overshoots(self, rate, step, progress):
    return rate * 1.01


@rate(BETWEEN, says="the rate at step .* is -")
def goes_below_0(self, rate, step, progress):
    return rate - 0.5 * self.peak * progress


@rate(BETWEEN, says="is nan")
def divides_by_the_warmup(self, rate, step, progress):
    return rate if self.warmup else float("nan")


@rate(BETWEEN, says="is a array")
def returns_an_array(self, rate, step, progress):
    return mx.array(rate)


@rate("the_peak_is_reached", says="the highest rate is")
def stays_low(self, rate, step, progress):
    return 0.9 * rate


@rate("warm_up_starts_low", says="the rate at step 0 is 0.02, learning_rate")
def starts_at_the_peak(self, rate, step, progress):
    return self.peak * self.remaining(step, progress)


@rate("warm_up_starts_low", says="at step 9")
def warms_up_at_half_the_peak(self, rate, step, progress):
    return 0.5 * self.peak if step < self.warmup else rate


@fault("schedule", "linear", "progress_is_followed", says="the rate at step 40 of 100 .* whatever the progress")
@fault("schedule", "cosine", "progress_is_followed", says="the rate at step 40 of 100 .* whatever the progress")
def counts_steps_alone(schedule):
    class Faulty(schedule):
        def __init__(self, config, options):
            super().__init__(config, options)
            self.steps = config.max_steps

        def __call__(self, step, progress):
            return super().__call__(step, step / self.steps)

    return Faulty


@rate(BETWEEN, says="the rate at step .* learning_rate")
def overshoots_when_time_runs_out(self, rate, step, progress):
    return rate if progress <= step / 50 * 0.6 or step < 2 else 2 * self.peak


@rate("rates_depend_on_the_moment_alone", says="has changed")
def counts_its_calls(self, rate, step, progress):
    self.calls = getattr(self, "calls", 0) + 1
    return rate / self.calls


# Commands ---------------------------------------------------------------------------------------------------------------


@fault("command", "init", "is_a_command", says="no help text")
def has_no_help(_):
    return click.command("x")(lambda: None)


@fault("command", "init", "help_is_shown", says="--help exits 1")
def fails_at_once(_):
    class Failing(click.Command):
        def get_help(self, ctx):
            raise RuntimeError("too early")

    return Failing("x", help="Fails.")


@fault("command", "init", "help_is_shown", says="shows no usage")
def hides_its_usage(_):
    class Silent(click.Command):
        def get_help(self, ctx):
            return "Nothing."

    return Silent("x", help="Says nothing.")


@fault("command", "init", "options_are_explained", says="options without help: wide")
def does_not_explain_an_option(_):
    inner = click.Command("inner", params=[click.Option(["--wide"])])
    return click.Group("x", help="Has parts.", commands=[inner])


@fault("command", "init", "unknown_flags_are_refused", says="--no-such-option exits 0")
def takes_any_flag(_):
    return click.Command(
        "x", help="Goes on.", context_settings={"ignore_unknown_options": True, "allow_extra_args": True}
    )
