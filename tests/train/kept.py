"""What a run leaves on disk, as tests compare it."""

import json

import mlx.core as mx

from lmx_core.checkpoint import model_directory


def weights(run):
    """Of a run's last checkpoint, or of a checkpoint."""
    return mx.load(str(model_directory(run) / "model.safetensors"))


def equal(a, b):
    """To the bit."""
    return a.keys() == b.keys() and all(mx.array_equal(a[name], b[name]).item() for name in a)


def lines(run):
    """Its metrics, in order."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
