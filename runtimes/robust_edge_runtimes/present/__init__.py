"""Results as text tables and JUnit files. Formats only: nothing is computed or decided here."""
