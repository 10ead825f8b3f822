"""A reflection graded by hand in nbgrader's formgrader, in a real browser."""

import sys

import pytest
from classroom import Classroom
from lab_server import served

from gclib.chapters import find_chapter

pytestmark = pytest.mark.full

ANSWER = "The query is not needed any more, one weighted mean remains, and it is linear."


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    room = Classroom(tmp_path_factory.mktemp("course"), find_chapter("01"))
    room.submit("ada", {"c01-reflection": ANSWER})
    done = room.nbgrader("autograde", "01_non_local")
    assert done.returncode == 0, done.stderr
    return room


def test_points_and_comment_given_in_the_browser_reach_the_gradebook(room, browser, tmp_path):
    assert room.waiting("ada") == {"c01-reflection"}
    command = [sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root"]
    with served(command, room.folder, tmp_path / "lab.txt") as address:
        base, token = address.split("/lab")[0], address.split("token=")[1]
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(f"{base}/formgrader/manage_assignments?token={token}")
        page.wait_for_selector("text=01_non_local", timeout=60_000)
        page.goto(f"{base}/formgrader/gradebook/01_non_local/non_local?token={token}")
        page.click("text=Submission #1", timeout=60_000)
        page.wait_for_selector(f"text={ANSWER[:40]}", timeout=60_000)
        text = page.inner_text("body")
        assert "For the person who grades" in text  # model answer and rubric under the answer
        assert "Rubric." in text
        assert "Model answer." in text
        answer = page.locator(".nbgrader_cell", has_text=ANSWER[:40]).first
        answer.scroll_into_view_if_needed()
        answer.locator("input.score").fill("2.5")
        answer.locator("input.score").press("Tab")
        comment = answer.locator("textarea.comment")
        comment.fill("(c) asks for a task.")
        comment.press("Tab")
        page.wait_for_selector(".save-icon, .glyphicon-ok", state="attached", timeout=10_000)
        page.wait_for_timeout(1500)
        page.screenshot(path=tmp_path / "formgrader.png")
        page.close()
    assert room.waiting("ada") == set()
    assert room.grades("ada")["c01-reflection"] == 2.5
    room.nbgrader("generate_feedback", "01_non_local", "--force")
    page = room.feedback("ada")
    assert "(c) asks for a task." in page
    assert "Rubric." not in page  # for the grader alone


def test_grading_again_keeps_the_points_given_by_hand(room):
    done = room.nbgrader("autograde", "01_non_local", "--force")
    assert done.returncode == 0, done.stderr
    from nbgrader.api import Gradebook

    with Gradebook(room.url) as gradebook:
        submission = gradebook.find_submission("01_non_local", "ada")
        grades = {g.name: g for notebook in submission.notebooks for g in notebook.grades}
    assert grades["c01-reflection"].manual_score == 2.5
    assert grades["c01-reflection"].score == 2.5
