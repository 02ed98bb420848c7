PROVIDERS = ["CPUExecutionProvider"]


def open_model(path, manifest, threads):
    """Function of (N, C, H, W) float32 to (N, K) float32, on ONNX Runtime."""
    try:
        import onnxruntime
    except ImportError:
        fail(3, "onnxruntime is missing: python3 -m pip install -r requirements.txt")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    try:
        session = onnxruntime.InferenceSession(path, options, providers=PROVIDERS)
    except Exception as cause:  # onnxruntime's own classes
        fail(3, "onnxruntime {} cannot load {}: {}".format(onnxruntime.__version__, path, cause))
    if session.get_providers()[0] != PROVIDERS[0]:
        fail(3, "asked for {}, onnxruntime would use {}".format(PROVIDERS[0], session.get_providers()))
    return lambda images: session.run(None, {manifest["input"]["name"]: images})[0]
