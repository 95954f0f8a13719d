"""Where the metrics of a run are carried to, each a component of the kind `callback`, and an extra of lmx-core."""
