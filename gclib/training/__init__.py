"""Training: one loop, and the recipes that use it."""
