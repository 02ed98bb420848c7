"""The options of generated C."""

from robust_edge_exporters.format_option import FormatOption

SYMBOL_PREFIX = FormatOption(
    name="symbol_prefix",
    type=str,
    default="re",
    help="Prefix of the names of C functions and macros; networks with different prefixes link into one program",
    flag="--symbol-prefix",
)
OPTIONS = (SYMBOL_PREFIX,)
