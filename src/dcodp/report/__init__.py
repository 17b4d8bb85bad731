"""Records → tables, figures, pictures, verdicts and one page. Reads records only; needs no torch."""
