"""What goes wrong in callbacks."""

import mlx.core as mx

from .faults import fault


def looking_on(*checks, says):
    """Note a function `(self, trainer, metrics)`, called after each step."""

    def add(look):
        def apply(callback):
            class Faulty(callback):
                def on_step_end(self, trainer, metrics):
                    super().on_step_end(trainer, metrics)
                    look(self, trainer, metrics)

            return Faulty

        apply.__name__ = look.__name__
        return fault("callback", "memory", *checks, says=says)(apply)

    return add


@fault("callback", "memory", "hooks_are_called", says="on_step_begin is never called; trainers call on_checkpoint")
def waits_for_what_never_comes(callback):
    return type("Faulty", (callback,), {"on_step_begin": lambda self, trainer: None})


@fault("callback", "memory", "hooks_are_called", says="none of the methods that trainers call")
def does_nothing(callback):
    return type("Faulty", (), {"__init__": lambda self, config: None})


@fault("callback", "memory", "hooks_are_called", says="on_eval_end cannot be called with the 2 arguments")
def takes_no_metrics(callback):
    return type("Faulty", (callback,), {"on_eval_end": lambda self, trainer: None})


ALONE = "training_is_left_alone"


@looking_on(ALONE, says="the loss of step 2 is another one")
def moves_a_weight(self, trainer, metrics):
    trainer.model.embed.weight = trainer.model.embed.weight * 1.01


@looking_on(ALONE, says="modules are left in another mode")
def turns_dropout_off(self, trainer, metrics):
    trainer.model.eval()


@looking_on(ALONE, says="the state of the model has other parts")
def keeps_what_it_saw_in_the_model(self, trainer, metrics):
    trainer.model["_seen"] = mx.zeros(3)


@looking_on(ALONE, says="differ")
def forgets_the_optimizer(self, trainer, metrics):
    if trainer.step == trainer.config.max_steps:
        trainer.optimizer.state["step"] = trainer.optimizer.state["step"] * 0


@looking_on("metrics_are_plain", says="it changes loss, which was measured before")
def smoothes_the_loss(self, trainer, metrics):
    metrics["loss"] *= 0.5


@looking_on("metrics_are_plain", says="'width' is a array, not a number")
def adds_an_array(self, trainer, metrics):
    metrics["width"] = mx.array(3.0)


@looking_on("resumed_runs_go_on", says="resumed, it measures")
def counts_from_the_beginning(self, trainer, metrics):
    self.steps = getattr(self, "steps", 0) + 1
    if self.steps > 3:
        metrics["late"] = 1.0


@fault("callback", "memory", "failures_pass_through", says="and what is raised is ZeroDivisionError")
def divides_by_the_steps(callback):
    class Faulty(callback):
        steps = 0

        def on_step_end(self, trainer, metrics):
            self.steps += 1
            super().on_step_end(trainer, metrics)

        def on_train_fail(self, trainer, error):
            trainer.seconds / self.steps

    return Faulty
