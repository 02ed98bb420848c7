"""The options of sparse-CSR TorchScript."""

from robust_edge_exporters.format_option import FormatOption

CSR_THRESHOLD = FormatOption(
    name="csr_threshold",
    type=float,
    help="Store a layer as CSR if it keeps at most this fraction; by default in the form that is faster here",
    flag="--csr-threshold",
    minimum=0,
    maximum=1,
)
OPTIONS = (CSR_THRESHOLD,)
