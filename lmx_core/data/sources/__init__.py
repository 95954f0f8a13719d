"""How documents become training samples: numbered without end, so that a number is all that a run must save."""

from lmx_core.data.sources.mixed import Mixed as Mixed
from lmx_core.data.sources.training import training_source as training_source
