"""The options of ONNX files, which TensorRT's have, too."""

from robust_edge_exporters.format_option import FormatOption

INT8_SKIP = FormatOption(
    name="int8_skip",
    type=str,
    help="Keep these layers of an int8 file in fp32: names of modules, weights or nodes, * for any text",
    flag="--int8-skip",
    precision="int8",
)
OPTIONS = (INT8_SKIP,)
