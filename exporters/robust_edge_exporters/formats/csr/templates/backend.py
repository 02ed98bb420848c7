def open_model(path, manifest, threads):
    """Function of (N, C, H, W) float32 to (N, K) float32, on PyTorch alone."""
    try:
        import torch
    except ImportError:
        fail(3, "torch is missing: python3 -m pip install -r requirements.txt")
    torch.set_num_threads(threads)
    warnings.simplefilter("ignore")  # PyTorch calls CSR a beta, and from 2.10 on TorchScript deprecated
    try:
        network = torch.jit.load(path, map_location="cpu").eval()
    except Exception as cause:  # PyTorch's own classes
        fail(3, "torch {} cannot load {}: {}".format(torch.__version__, path, cause))

    def infer(images):
        with torch.no_grad():
            return network(torch.from_numpy(images)).numpy()

    return infer
