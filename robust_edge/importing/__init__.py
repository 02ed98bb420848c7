"""Runs that are not trained here: networks that exist already, one file per kind of source."""
