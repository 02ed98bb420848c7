"""Build, store and run a TensorRT engine. Bundles contain it as build_engine.py, which needs Python 3.6 and numpy."""
