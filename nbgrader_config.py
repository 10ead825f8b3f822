"""nbgrader's configuration: solutions/ -> chapters/ -> submitted/ -> autograded/ -> feedback/.

``make chapters`` generates chapters/ (verified, and swapped in whole). Plain ``nbgrader autograde``
runs student code as you, beside the gradebook: use it for classes that you trust.
"""

from nbconvert.preprocessors import ClearMetadataPreprocessor, CSSHTMLHeaderPreprocessor
from nbgrader.preprocessors import (
    AssignLatePenalties,
    CheckCellMetadata,
    ClearOutput,
    Execute,
    GetGrades,
    LimitOutput,
    OverwriteKernelspec,
    SaveAutoGrades,
)

from gclib.checks.outcome import STUB_MESSAGE
from gclib.grading.preprocessors import (
    DropDuplicateIds,
    Harmless,
    HideHiddenTests,
    HideRubric,
    RestoreCells,
    ShowRubric,
    StderrToStdout,
)

c = get_config()  # noqa: F821 (traitlets defines it)

c.CourseDirectory.course_id = "gcnet"
c.CourseDirectory.source_directory = "solutions"
c.CourseDirectory.release_directory = "chapters"
c.CourseDirectory.ignore = [".ipynb_checkpoints", "*.pyc", "__pycache__", "feedback"]

c.ClearSolutions.code_stub = {"python": f'raise NotImplementedError("{STUB_MESSAGE}")'}
c.ClearSolutions.text_stub = "*Write your answer here.*"

c.Autograde.sanitize_preprocessors = [
    ClearOutput,
    DropDuplicateIds,
    OverwriteKernelspec,
    RestoreCells,
    CheckCellMetadata,
]
c.Autograde.autograde_preprocessors = [
    Execute,
    StderrToStdout,
    ClearMetadataPreprocessor,
    LimitOutput,
    SaveAutoGrades,
    AssignLatePenalties,
    Harmless,
    ShowRubric,
    CheckCellMetadata,
]
# Experiments are for the reader; grading needs the answers and the checks alone.
c.Execute.skip_cells_with_tag = "experiment"
# A check takes less than a second. The first cell imports torch, on a busy machine for long.
c.Execute.timeout = 120
c.Execute.timeout_func = lambda cell: 20 if "check" in cell.metadata.get("tags", []) else 120
c.Execute.startup_timeout = 120

c.GenerateFeedback.preprocessors = [
    HideRubric,
    GetGrades,
    HideHiddenTests,
    CSSHTMLHeaderPreprocessor,
]
