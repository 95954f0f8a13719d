"""What a run is measured with, each a component of the kind `callback`."""
