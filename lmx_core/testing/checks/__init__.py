"""The promises, one function each, which raises `AssertionError` where a component breaks it.

Those of modules are called with `make`, which builds one: `check(lambda: MyMixer(SMALL))`. `MIXER` holds for attention
and for blocks (and so for layouts and positions); `FFN` and `NORM` for what works on each position by itself; `POSITION`
for encodings; `MODEL` for models beyond what holds for their parts. The others are called with a `Candidate`, which
knows the component's name, options and config; those of `LAYOUT`, `CACHE` and `SCALING` with a `Make`: it builds one
with `attention=` and `ffn=`, of a scope, or for a head.
"""

from collections.abc import Callable, Sequence

from lmx_core.testing.candidate import Candidate
from lmx_core.testing.checks import (
    caches,
    callbacks,
    commands,
    datasets,
    documents,
    factories,
    layouts,
    models,
    modules,
    objectives,
    optimizers,
    options,
    positions,
    scalings,
    schedules,
    sources,
    streams,
    sublayers,
    tokenizers,
    trainers,
)
from lmx_core.testing.subjects import Make, Maker, close, largest

__all__ = ["close", "largest"]

Checks = Sequence[Callable[[Maker], None]]
Layouts = Sequence[Callable[[Make], None]]
Others = Sequence[Callable[[Candidate], None]]

MODULE: Checks = (
    modules.keeps_shape_and_dtype,
    modules.reports_are_scalars,
    modules.rows_are_independent,
    modules.nothing_stays_behind,
    modules.input_is_left_alone,
    modules.training_changes_nothing,
    modules.compiled_equals_eager,
    modules.gradients_reach_everything,
    modules.gradients_are_slopes,
    modules.quantised_runs,
    modules.weights_round_trip,
    modules.copies_are_independent,
)
FFN: Checks = (*MODULE, sublayers.treats_positions_alike, sublayers.accepts_zeros)
NORM: Checks = FFN
STREAM: Checks = (
    *MODULE,
    streams.past_ignores_future,
    streams.cache_equals_one_pass,
    streams.long_sequences_are_no_different,
    streams.cache_counts_tokens,
    streams.cache_state_round_trips,
    streams.caches_share_nothing,
    streams.ragged_batches_equal_single_rows,
    streams.batches_join_and_leave,
    streams.one_row_becomes_several,
    documents.documents_of_a_row_are_apart,
)
MIXER: Checks = (*STREAM, streams.a_boolean_mask_is_honoured)
POSITION: Checks = (
    positions.offsets_continue,
    positions.documents_begin_anew,
    positions.dtypes_are_kept,
    positions.knows_its_limit,
    positions.turns_by_distance,
    positions.tells_positions_apart,
)
CACHE: Layouts = (
    caches.holds_what_it_is_given,
    caches.parts_are_like_the_whole,
    caches.tokens_are_taken_back,
    caches.nothing_is_taken_back_that_is_gone,
    caches.padding_is_no_token,
    caches.saved_caches_go_on,
    caches.memory_is_bounded_by_the_scope,
    caches.rows_join_and_leave,
    caches.a_row_goes_on_as_several,
)
SCALING: Layouts = (
    scalings.frequencies_fit,
    scalings.waves_are_only_stretched,
    scalings.says_what_it_depends_on,
)
LAYOUT: Layouts = (
    layouts.sublayers_are_called_once,
    layouts.zeros_add_nothing,
    layouts.says_whether_it_normalises,
    layouts.dropout_is_for_training,
)
SAVED: Checks = (models.config_round_trips, models.model_round_trips, models.builds_lazily)
MODEL: Checks = (*STREAM, *SAVED)
OPTIONS: Others = (options.unknown_options_are_refused, options.options_round_trip)
FACTORY: Others = (
    factories.has_a_tiny_size,
    factories.every_size_is_a_model,
    factories.unknown_arguments_are_refused,
    factories.configs_come_again,
)
TOKENIZER: Others = (
    tokenizers.text_comes_back,
    tokenizers.tokens_are_decoded_one_by_one,
    tokenizers.ids_are_below_vocab_size,
    tokenizers.every_token_is_decoded,
    tokenizers.fitting_comes_again,
    tokenizers.encoding_comes_again,
    tokenizers.saved_tokenizers_are_the_same,
)
DATASET: Others = (datasets.documents_are_text, datasets.documents_come_again, datasets.splits_are_apart)
OBJECTIVE: Others = (
    objectives.sums_are_numbers,
    objectives.parts_are_like_the_whole,
    objectives.what_is_masked_has_no_part,
    objectives.documents_are_by_themselves,
    objectives.gradients_are_its_slopes,
    objectives.compiled_losses_are_the_same,
    objectives.the_model_is_left_alone,
)
OPTIMIZER: Others = (
    optimizers.lowers_a_loss,
    optimizers.every_parameter_moves,
    optimizers.honours_the_learning_rate,
    optimizers.decays_weights_alone,
    optimizers.rates_by_width_begin_at_1,
    optimizers.saved_state_continues,
    optimizers.compiled_updates_are_the_same,
)
SCHEDULE: Others = (
    schedules.rates_are_between_0_and_the_peak,
    schedules.the_peak_is_reached,
    schedules.warm_up_starts_low,
    schedules.progress_is_followed,
    schedules.rates_depend_on_the_moment_alone,
)
SOURCE: Others = (
    sources.batches_have_their_shapes,
    sources.targets_come_next,
    sources.samples_depend_on_their_number_alone,
    sources.epochs_read_a_row_once,
    sources.what_is_not_learned_is_masked,
    sources.nothing_to_learn_is_an_error,
    sources.batches_may_be_written_to,
)
CURRICULUM: Others = (
    sources.batches_have_their_shapes,
    sources.targets_come_next,
    sources.samples_depend_on_their_number_alone,
    sources.batches_may_be_written_to,
    sources.rows_are_the_sources,
    sources.all_is_read_in_the_end,
)
CALLBACK: Others = (
    callbacks.hooks_are_called,
    callbacks.training_is_left_alone,
    callbacks.metrics_are_plain,
    callbacks.resumed_runs_go_on,
    callbacks.failures_pass_through,
)
TRAINER: Others = (
    trainers.data_is_told,
    trainers.runs_come_again,
    trainers.resumed_runs_are_the_same,
    trainers.evaluations_measure_the_criterion,
)
COMMAND: Others = (
    commands.is_a_command,
    commands.help_is_shown,
    commands.options_are_explained,
    commands.unknown_flags_are_refused,
)
