"""Learning rates over the course of a run."""
