"""What goes wrong in sources of training samples and in curricula."""

import numpy as np

from lmx_core.errors import DataError

from .faults import fault

BOTH = (("source", "windows"), ("source", "packed"), ("curriculum", "length"), ("curriculum", "difficulty"))


def batch(*checks, says, of=(("source", "packed"),)):
    """Note a function `(self, batch, samples, step) -> batch` of a batch that works."""

    def add(change):
        def apply(source):
            class Faulty(source):
                def batch(self, samples, step):
                    found = {**super().batch(samples, step)}
                    return change(self, found, list(samples), step)

            return Faulty

        apply.__name__ = change.__name__
        for kind, base in of:
            fault(kind, base, *checks, says=says)(apply)
        return change

    return add


SHAPES, NEXT = "batches_have_their_shapes", "targets_come_next"
ALONE = "samples_depend_on_their_number_alone"


@batch(SHAPES, says="no targets", of=BOTH)
def has_no_targets(self, found, samples, step):
    return {"inputs": found["inputs"]}


@batch(SHAPES, says="inputs are int64, not int32", of=BOTH)
def counts_in_64_bits(self, found, samples, step):
    return found | {"inputs": found["inputs"].astype(np.int64)}


@batch(SHAPES, says="mask are float32")
def weighs_its_targets(self, found, samples, step):
    return found | {"mask": found["mask"].astype(np.float32)}


@batch(SHAPES, says="samples are 2 rows", of=BOTH)
def gives_two_rows_at_least(self, found, samples, step):
    return {name: np.repeat(value, 2, axis=0) if len(value) == 1 else value for name, value in found.items()}


@batch(SHAPES, says="rows are 17 tokens long, seq_len is 16")
def gives_inputs_and_targets_as_one(self, found, samples, step):
    return {name: np.pad(value, [(0, 0), (0, 1)]) for name, value in found.items()}


@batch(SHAPES, says="segments do not count from 0")
def counts_documents_from_1(self, found, samples, step):
    return found | {"segments": found["segments"] + 1}


@batch(SHAPES, says="mask have the shape")
def masks_rows_as_a_whole(self, found, samples, step):
    return found | {"mask": found["mask"].any(axis=1)}


@batch(NEXT, says="is to be predicted", of=BOTH)
def predicts_what_it_sees(self, found, samples, step):
    return found | {"targets": found["inputs"]}


@batch(NEXT, says="is to be predicted")
def joins_what_it_keeps_apart(self, found, samples, step):
    return {name: value for name, value in found.items() if name != "segments"} | {
        "mask": np.ones_like(found["mask"]),
    }


@batch(ALONE, says="is another one the second time", of=BOTH)
def counts_its_batches(self, found, samples, step):
    self.calls = getattr(self, "calls", 0) + 1
    return found | {"inputs": found["inputs"] + self.calls}


@batch(ALONE, says="is another one the second time", of=BOTH)
def mixes_the_rows_of_a_batch(self, found, samples, step):
    return {name: value[::-1] for name, value in found.items()}


@batch(ALONE, says="is another one the second time")
def changes_with_the_step(self, found, samples, step):
    return found | {"inputs": found["inputs"] + step}


@fault("source", "windows", ALONE, says="is another one the second time")
@fault("curriculum", "difficulty", ALONE, says="is another one the second time")
def draws_a_seed_of_its_own(source):
    class Faulty(source):
        built = 0

        def __init__(self, *args):
            super().__init__(*args)
            Faulty.built += 1
            self.seed = Faulty.built

    return Faulty


@fault("source", "packed", "epochs_read_a_row_once", says="of epoch 0 are .* rows")
@fault("source", "windows", "epochs_read_a_row_once", says="of epoch 0 are .* rows")
def draws_rows_at_random(source):
    class Faulty(source):
        def batch(self, samples, step):
            return self.read([(sample * sample) % self.rows for sample in samples])

    return Faulty


@batch("what_is_not_learned_is_masked", says="count as targets, which the documents say are not learned")
def learns_everything(self, found, samples, step):
    return found | {"mask": np.ones_like(found["mask"])}


@batch("what_is_not_learned_is_masked", says="nothing is learned")
def learns_nothing(self, found, samples, step):
    return found | {"mask": np.zeros_like(found["mask"])}


def refusing(error, says, base):
    """A source that, where it should refuse what it is given, does something else."""

    def apply(source):
        class Faulty(source):
            def __init__(self, documents, config, options):
                try:
                    super().__init__(documents, config, options)
                except DataError as problem:
                    if error is not None:
                        raise error(str(problem)) from None

        return Faulty

    apply.__name__ = f"answers_nothing_to_learn_with_{error and error.__name__}"
    fault("source", base, "nothing_to_learn_is_an_error", says=says)(apply)


for base in ("windows", "packed", "padded"):
    refusing(None, "documents of which nothing is learned: no DataError", base)
    refusing(ZeroDivisionError, "could not be built: ZeroDivisionError", base)

WRITTEN = "batches_may_be_written_to"


@fault("source", "windows", WRITTEN, says="a batch is a part of the documents")
def hands_out_the_documents(source):
    class Faulty(source):
        def batch(self, samples, step):
            row = self.tokens[: self.length][None]
            return {"inputs": row, "targets": row}

    return Faulty


@batch(WRITTEN, says="change when the batch before is written to", of=BOTH)
def keeps_its_batches(self, found, samples, step):
    self.kept = getattr(self, "kept", {})
    return dict(self.kept.setdefault((*samples, step), found))


@batch("rows_are_the_sources", says="is another one in the curriculum", of=BOTH[2:])
def pads_what_it_cuts(self, found, samples, step):
    return found | {"targets": np.where(np.arange(found["targets"].shape[1]) < 3, found["targets"], 0)}


@batch("rows_are_the_sources", says="which no row of the source does", of=BOTH[2:])
def cuts_at_the_beginning(self, found, samples, step):
    return {name: value[:, 1:] for name, value in found.items()}


@batch("all_is_read_in_the_end", says="rows are still 8 tokens long", of=BOTH[2:])
def stays_short(self, found, samples, step):
    return {name: value[:, :8] for name, value in found.items()}


@fault("curriculum", "difficulty", "all_is_read_in_the_end", says="only 12 of 24 rows are read")
def stays_easy(curriculum):
    class Faulty(curriculum):
        def competence(self, step):
            return min(super().competence(step), 0.5)

    return Faulty
