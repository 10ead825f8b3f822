"""From a solution notebook to a returned grade: generation, nbgrader's preprocessors, hand-in."""
