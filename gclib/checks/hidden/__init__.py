"""Hidden checks: run when work is graded, left out of what a class receives."""
