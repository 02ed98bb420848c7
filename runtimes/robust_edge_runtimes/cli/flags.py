"""The options of a command, added to an error of library code, which names settings and parameters."""

from __future__ import annotations

import re

import click

SETTING = r"(?<![\w./`-])[a-z]\w*(?:\.\w+)+(?![\w/=])"  # pruning.keep, neither in a path nor in an assignment
PARAMETER = r"`\w+`"


def with_flags(text: str, command: click.Command) -> str:
    """Name the options of a command in an error text.

    A setting that has one keeps its name, by which a config file sets it: `pruning.keep` becomes `pruning.keep
    (--keep)`. A parameter, which library code writes in backticks, becomes its option, `--limit`. A name for which
    the command has no option is left as it is.

    Args:
        text: the message of an error.
        command: the command that was running; it takes the setting `pruning.keep` as the argument `pruning_keep`.
    """
    flags = {param.name: max(param.opts, key=len) for param in command.params if isinstance(param, click.Option)}

    def named(found: re.Match[str]) -> str:
        name = found.group()
        flag = flags.get(name.strip("`").replace(".", "_"))
        if flag is None:
            return name
        return flag if name.startswith("`") else f"{name} ({flag})"

    return re.sub(f"{PARAMETER}|{SETTING}", named, text)
