"""How settings are declared, checked, read and offered as command-line options."""
