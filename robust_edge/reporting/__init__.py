"""Figures, tables and the HTML report, made from the files of runs, verdicts and bench results."""
