"""Families of checkpoints, kin by kin. Each is a component `loader.<model_type>`."""
