"""A model as an SVG: its layers in order, how each block is wired, and what it comes to."""

from lmx_core.picture.page import picture as picture
