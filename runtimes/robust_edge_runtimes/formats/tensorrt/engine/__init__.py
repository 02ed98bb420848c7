"""Builds, keeps and runs an engine; joined to build_engine.py in bundles, so it runs on Python 3.6 with numpy alone."""
