"""The modes of `verify`: each attacks a subject and returns a measurement."""
