"""Results as tables, JUnit files and reports of the environment."""
