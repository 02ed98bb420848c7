def open_model(path, manifest, threads):
    """Function of (N, C, H, W) float32 to (N, K) float32, on the compiled C of this folder."""
    from pathlib import Path

    sys.path.insert(0, HERE)
    try:
        import engine
    except ImportError as cause:
        fail(4, "the bundle is damaged: {}".format(cause))
    folder, companions = Path(HERE), manifest["artifact"]["companions"]
    try:
        built = engine.library(folder, [item["file"] for item in companions])
        return engine.Network(built, folder / engine.WEIGHTS, threads=threads).infer
    except engine.DamagedError as cause:
        fail(4, str(cause))
    except engine.EngineError as cause:
        fail(3, str(cause))
