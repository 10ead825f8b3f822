"""Pages that need nothing but a browser: no script, no network, formulas as MathML."""
