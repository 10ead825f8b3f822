"""Attention maps under the pointer: click a position, move through the training (paper section 3).

>>> from gclib import explorer
>>> explorer.show("pairing")
"""

from gclib.explorer.recording import TASKS, Recorded, recorded
from gclib.explorer.show import offline_page, show, static_figure

__all__ = ["TASKS", "Recorded", "offline_page", "recorded", "show", "static_figure"]
