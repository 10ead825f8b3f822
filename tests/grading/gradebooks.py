"""A class whose gradebook nbgrader made, and grades written into it as grading writes them."""

import shutil
from pathlib import Path

from classroom import generated

from gclib.chapters import Chapter
from gclib.grading.classroom import Course


def graded_class(folder: Path) -> Course:
    """A class of nobody, with a gradebook that knows all chapters."""
    folder.mkdir()
    shutil.copy(Path(generated().name, "gradebook.db"), folder)
    course = Course(folder)
    course.replace_file(folder / "course.json", '{"gradebook": ""}')
    return course


def give(
    course: Course,
    student: str,
    chapter: Chapter,
    *,
    share: float = 1.0,
    by_hand: float | None = None,
    penalty: float = 0.0,
    comment: str = "",
) -> float:
    """Grade a student.

    Args:
        course: the class.
        student: id.
        chapter: the chapter.
        share: of the points of checks.
        by_hand: points for what a person grades; None leaves it waiting.
        penalty: for handing in late.
        comment: on every solution cell.

    Returns:
        The points, without the penalty.
    """
    from nbgrader.api import Gradebook

    total = 0.0
    with Gradebook(course.gradebook) as book:
        book.update_or_create_student(student)
        submission = book.update_or_create_submission(chapter.folder, student)
        for notebook in submission.notebooks:
            notebook.late_submission_penalty = penalty
            for grade in notebook.grades:
                if grade.cell.cell_type == "code":
                    grade.auto_score = share * grade.cell.max_score
                    grade.needs_manual_grade = False
                    total += grade.auto_score
                else:
                    grade.manual_score, grade.needs_manual_grade = by_hand, by_hand is None
                    total += by_hand or 0.0
            for each in notebook.comments:
                each.auto_comment = comment or None
        book.db.commit()
    return total
