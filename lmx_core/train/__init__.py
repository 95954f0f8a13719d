"""Training: one loop, its step, and what surrounds it."""
