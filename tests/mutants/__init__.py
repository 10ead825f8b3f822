"""Wrong and right answers to every exercise; they live in the tests alone."""
