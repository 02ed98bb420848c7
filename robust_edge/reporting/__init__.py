"""Figures and the page, made from what runs, verdicts and benches have written."""
