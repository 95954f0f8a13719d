"""What a run reads, learns and measures, each built as `Class(config)` or `Class(config, options)` of a `RunConfig`."""

from lmx_core.train.recipes.language_model import LanguageModelling as LanguageModelling
from lmx_core.train.recipes.left_out import must_be_left_out as must_be_left_out
