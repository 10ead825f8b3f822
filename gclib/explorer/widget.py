"""The explorer as a widget of JupyterLab, by anywidget."""

from __future__ import annotations

from typing import Any

import anywidget
import traitlets

from gclib.explorer.recording import SCENES, TASKS, Recorded, recorded
from gclib.explorer.show import source


class Explorer(anywidget.AnyWidget):
    """Sends what a scene needs to the browser; all else happens there.

    Args:
        seen: the scene to begin with.
    """

    _esm = source("explorer.js")
    _css = source("explorer.css")
    about = traitlets.Dict().tag(sync=True)
    arrays = traitlets.Bytes().tag(sync=True)
    choices = traitlets.Dict().tag(sync=True)
    wanted = traitlets.Dict().tag(sync=True)

    def __init__(self, seen: Recorded) -> None:
        about, arrays = seen.packed()
        choices = {task: list(range(SCENES)) for task in TASKS}
        super().__init__(about=about, arrays=arrays, choices=choices)

    @traitlets.observe("wanted")
    def _answer(self, change: dict[str, Any]) -> None:
        """Another task or scene was chosen in the browser."""
        task, scene = change["new"].get("task"), change["new"].get("scene")
        if task not in TASKS or not isinstance(scene, int) or not 0 <= scene < SCENES:
            return
        about, arrays = recorded(task, scene).packed()
        with self.hold_sync():  # both in one message
            self.about, self.arrays = about, arrays
