def open_model(path, manifest, threads):
    """Function of (N, C, H, W) float32 to (N, K) float32, on a TensorRT engine that is built at first use."""
    sys.path.insert(0, HERE)
    try:
        import build_engine
    except ImportError as cause:
        fail(4, "the bundle is damaged: {}".format(cause))
    try:
        settings = build_engine.Settings.of_bundle(HERE)
        return build_engine.open_engine(settings, log=lambda text: print(text, file=sys.stderr)).infer
    except build_engine.EngineError as cause:
        fail(3, str(cause))
