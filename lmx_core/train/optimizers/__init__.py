"""Optimisers, built as `Class(config, options)` of a `TrainConfig`: objects with MLX's optimizer interface.

One whose rates are known to carry over to other widths (muP, arXiv:2203.03466) has a method `mup_rate(path, weight, fan_in,
fan_out)`: the factor of the learning rate of a parameter with so many times the inputs and outputs that it had at
`mup_base_width`. One that never decays says `decays = False`.
"""
