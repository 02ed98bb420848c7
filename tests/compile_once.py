"""Calls a C compiler once for the same preprocessed source and flags; the tests find this as `cc`, `gcc` and `clang`.

    python compile_once.py COMPILER STORE ARGUMENT...

A call that does not build .c files into one file is the compiler's own, and one that prints something is not kept.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path


def parted(words):
    """Output, inputs and all other arguments of a call."""
    output, inputs, others, words = None, [], [], iter(words)
    for word in words:
        if word == "-o":
            output = next(words, None)
        elif word.startswith("-") and word != "-":
            others.append(word)
        else:
            inputs.append(word)
    return output, inputs, others


def key_of(compiler, inputs, others):
    """Hash of what the compiler would compile and how; None where it cannot be preprocessed."""
    done = subprocess.run([compiler, *others, *inputs, "-E", "-P"], capture_output=True, check=False)
    if done.returncode or done.stderr:
        return None
    flags = [word for word in others if not word.startswith("-I")]
    return hashlib.sha256("\0".join([compiler, *flags, ""]).encode() + done.stdout).hexdigest()


def replace(source, target):
    """Copy beside `target` and rename: who has loaded the file that was there keeps it."""
    handle, name = tempfile.mkstemp(dir=target.parent)
    os.close(handle)
    shutil.copy(source, name)
    Path(name).replace(target)


def compile_once(compiler, store, words):
    """The compiler's output file, copied from `store` if it has been made before."""
    output, inputs, others = parted(words)
    plain = output and inputs and all(name.endswith(".c") for name in inputs)
    key = key_of(compiler, inputs, others) if plain else None
    if key is None:
        os.execv(compiler, [compiler, *words])
    if (store / key).exists():
        replace(store / key, Path(output))
        return
    done = subprocess.run([compiler, *words], stderr=subprocess.PIPE, check=False)
    sys.stderr.buffer.write(done.stderr)
    if done.returncode or done.stderr:
        sys.exit(done.returncode)
    replace(output, store / key)


if __name__ == "__main__":
    compile_once(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
