"""What goes wrong in objectives."""

import mlx.core as mx

from .faults import fault


def losing(*checks, says):
    """Note a function `(self, loss, model, batch) -> (loss, count, metrics)`, `loss(batch)` being what works."""

    def add(change):
        def apply(objective):
            class Faulty(objective):
                def __call__(self, model, batch):
                    return change(self, lambda batch=batch: objective.__call__(self, model, batch), model, batch)

            return Faulty

        apply.__name__ = change.__name__
        return fault("objective", "next_token", *checks, says=says)(apply)

    return add


@losing("sums_are_numbers", says="nats has the shape")
def returns_rows(self, loss, model, batch):
    return *loss()[:2], {"nats": mx.zeros((4,))}


@losing("sums_are_numbers", says="the loss is nan")
def divides_by_nothing(self, loss, model, batch):
    total, count, metrics = loss()
    return total / 0 * 0, count, metrics


@losing("sums_are_numbers", says="it counts nothing")
def forgets_to_count(self, loss, model, batch):
    return loss()[0], mx.array(0), {}


@losing("sums_are_numbers", says="perplexity is a float, no array")
def measures_in_python(self, loss, model, batch):
    return *loss()[:2], {"perplexity": 1.0}


@losing("parts_are_like_the_whole", says="the loss of two parts is")
def returns_a_mean(self, loss, model, batch):
    total, count, metrics = loss()
    return total / count, count, metrics


@losing("parts_are_like_the_whole", says="the count of two parts is")
def counts_batches(self, loss, model, batch):
    return loss()[0], mx.array(1), {}


@losing("parts_are_like_the_whole", says="differ by")
def means_its_metrics(self, loss, model, batch):
    total, count, _ = loss()
    return total, count, {"mean": 10 * total / count}


@losing("what_is_masked_has_no_part", says="it counts 48 of 27 targets")
def ignores_the_mask(self, loss, model, batch):
    return loss({name: value for name, value in batch.items() if name != "mask"})


@losing("what_is_masked_has_no_part", says="a target that is masked makes a difference")
def weighs_the_mask_softly(self, loss, model, batch):
    total, count, metrics = loss()
    return total + 1e-3 * batch["targets"].sum(), count, metrics


@losing("what_is_masked_has_no_part", says="of no target the loss is")
def adds_a_constant(self, loss, model, batch):
    total, count, metrics = loss()
    return total + 1.0, count, metrics


@losing("what_is_masked_has_no_part", says="of no target .* has a gradient")
def pulls_on_weights(self, loss, model, batch):
    total, count, metrics = loss()
    return total + model.embed.weight.sum() - mx.stop_gradient(model.embed.weight.sum()), count, metrics


@losing("documents_are_by_themselves", says="the loss of documents in one row is")
def ignores_segments(self, loss, model, batch):
    return loss({name: value for name, value in batch.items() if name != "segments"})


@losing("gradients_are_its_slopes", says="the loss changes by")
def stops_a_gradient(self, loss, model, batch):
    total, count, metrics = loss()
    return 2 * total - mx.stop_gradient(total), count, metrics


@losing("gradients_are_its_slopes", says="no parameter has a gradient")
def stops_every_gradient(self, loss, model, batch):
    total, count, metrics = loss()
    return mx.stop_gradient(total), count, metrics


@losing("compiled_losses_are_the_same", says="Attempting to eval an array during function transformations")
def looks_at_numbers(self, loss, model, batch):
    total, count, metrics = loss()
    return (total if total.item() > 0 else -total), count, metrics


@losing("compiled_losses_are_the_same", says="compiled, the loss is")
def counts_its_calls(self, loss, model, batch):
    self.calls = getattr(self, "calls", 0) + 1
    total, count, metrics = loss()
    return total * (1 + self.calls / 100), count, metrics


@losing("the_model_is_left_alone", says="training=True became")
def turns_dropout_off(self, loss, model, batch):
    model.eval()
    return loss()


@losing("the_model_is_left_alone", says="embed.weight has changed")
def normalises_embeddings(self, loss, model, batch):
    model.embed.weight = model.embed.weight / 2
    return loss()
