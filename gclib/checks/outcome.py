"""What a check can say: passed, not attempted, or failed with the reason."""

from __future__ import annotations

STUB_MESSAGE = "your code here"  # what the stub of an exercise raises NotImplementedError with


class NotAttempted(Exception):
    """The exercise still holds its stub. Worth no points, and no mistake either."""

    def __init__(self, exercise: str, what: str) -> None:
        self.exercise = exercise
        self.what = what
        super().__init__(f"{exercise}: {what} is not written yet")

    def _render_traceback_(self) -> list[str]:
        return [f"NotAttempted: {self}"]


class CheckFailed(AssertionError):
    """A property does not hold.

    Attributes:
        exercise: for example ``"c01-e2"``.
        what: the property, as its ``ok`` line would have named it.
        expected: what the check expected.
        got: what the student's work gave.
        cause: the likely cause, or an empty string.
        look: where to look, or an empty string.
    """

    def __init__(
        self, exercise: str, what: str, *, expected: str, got: str, cause: str = "", look: str = ""
    ) -> None:
        self.exercise = exercise
        self.what = what
        self.expected = expected
        self.got = got
        self.cause = cause
        self.look = look
        lines = [f"{exercise}: {what}"]
        lines += [f"  {name:<12} {_indent(text)}" for name, text in self.details() if text]
        super().__init__("\n".join(lines))

    def in_case(self, name: str) -> CheckFailed:
        """The same failure, with the name of the case in front of the property."""
        return CheckFailed(
            self.exercise,
            f"{name}: {self.what}",
            expected=self.expected,
            got=self.got,
            cause=self.cause,
            look=self.look,
        )

    def details(self) -> list[tuple[str, str]]:
        """The parts of the message with their labels, in the order they are shown."""
        return [
            ("expected", self.expected),
            ("got", self.got),
            ("likely cause", self.cause),
            ("look at", self.look),
        ]

    def _render_traceback_(self) -> list[str]:
        # Jupyter prints these lines in place of a traceback, which would show the source of hidden
        # checks. The card above it holds the details; here one sentence is enough.
        reason = self.cause or f"expected {self.expected}, got {self.got}"
        return [f"CheckFailed: {self.exercise}, {self.what}: {' '.join(reason.split())}"]


def _indent(text: str) -> str:
    return text.replace("\n", "\n" + " " * 15)
