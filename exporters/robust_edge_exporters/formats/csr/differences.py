"""Compare two TorchScript files: code, constants and tensors.

The code is compared as it is stored and with every call inlined. TorchScript distinguishes definitions of the same name
by a number that depends on what the process scripted before; inlining shows that none was exchanged for another. Of the
archive's serial number only that it is a number is compared.
"""

from __future__ import annotations

import itertools
import pickletools
import re
import struct
import zipfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import torch

from robust_edge_exporters.differences import tensor_difference
from robust_edge_runtimes.core.decode import short_repr
from robust_edge_runtimes.core.golden import CENTRAL, END, LOCAL, is_all_of
from robust_edge_runtimes.formats.csr.script import load_script

NUMBER = re.compile(r"[./]___torch_mangle_[0-9]{1,9}(?![./]___torch_mangle_)")
CONSTANT = re.compile(r"^  \w+ : Final\[.*$", re.MULTILINE)
WARNING = re.compile(r"\[warn_id=[0-9]{1,9}\]")  # torch numbers the warnings of a process
LOCATION = re.compile(r' # [^"\n]*:\d+:\d+$', re.MULTILINE)  # no quotation mark: none of it is in a constant
TEMPORARY = re.compile(r"(?<![\w.\"'])_[0-9]{1,9}\b")
SERIAL_NUMBER = ".data/serialization_id"
DIGITS = re.compile(rb"[0-9]{1,40}")
ZIP64_END = 76  # bytes of two records that torch writes before the last
PICKLES = {"data.pkl": "attributes", "constants.pkl": "constants"}


def csr_differences(built: Path, shipped: Path) -> list[str]:
    """Compare the file in `shipped` with the one that the run exports."""
    if built.read_bytes() == shipped.read_bytes():
        return []
    try:
        ours, theirs = _records(built), _records(shipped)
        found = [*_code(ours, theirs), *_tensors(built, shipped), *_pickles(ours, theirs)]
        found = found or [*_graph(built, shipped), *_other_records(ours, theirs)]
        found = found or [*_serial_number(shipped), *_gaps(built, shipped)]
    except Exception as cause:  # torch raises whatever the bytes provoke
        found = [f"cannot be read as TorchScript: {short_repr(str(cause))}"]
    return [f"{shipped.name}: {line}" for line in found]


def _records(path: Path) -> dict[str, bytes]:
    """The records of an archive, read as `torch.jit.load` reads them."""
    reader = torch._C.PyTorchFileReader(str(path))
    names = reader.get_all_records()
    if len(set(names)) != len(names):
        raise ValueError("two parts of the archive have one name")
    return {name: reader.get_record(name) for name in names if name != SERIAL_NUMBER}


def _is_code(name: str) -> bool:
    return name.startswith("code/") and name.endswith(".py")


def _code(ours: dict[str, bytes], theirs: dict[str, bytes]) -> Iterable[str]:
    """Every class and function, whichever file holds it."""
    expected, given = _definitions(ours), _definitions(theirs)
    missing, added = list((expected - given).elements()), list((given - expected).elements())
    for text in added:
        title = text.split("\n", 1)[0]
        like = next((item for item in missing if item.split("\n", 1)[0] == title), None)
        if like is None:
            yield f"the code has {short_repr(title)}, which is not in the export"
        else:
            missing.remove(like)
            line = next((line for line in text.split("\n") if line not in like.split("\n")), title)
            yield f"the code of {short_repr(title)} differs, for example in {short_repr(line.strip())}"
    for text in missing:
        yield f"the code lacks {short_repr(text.split(chr(10), 1)[0])}"


def _definitions(records: dict[str, bytes]) -> Counter[str]:
    """Classes and functions with the number of times that they occur, without the numbers in their names."""
    texts = [NUMBER.sub("", text.decode()) for name, text in records.items() if _is_code(name)]
    parts = (part for text in texts for part in re.split(r"^(?=class |def )", text, flags=re.MULTILINE))
    return Counter(_with_sorted_constants(_renumbered(part)) for part in parts if part)


def _renumbered(definition: str) -> str:
    """A definition whose functions number their temporaries from 0; torch goes on counting from the function before.

    Which function that is depends on what the process scripted before.
    """

    def numbered(function: str) -> str:
        names: dict[str, str] = {}
        return TEMPORARY.sub(lambda match: names.setdefault(match[0], f"_{len(names)}"), function)

    head, *functions = re.split(r"^(?= *def )", definition, flags=re.MULTILINE)
    return head + "".join(map(numbered, functions))


def _with_sorted_constants(definition: str) -> str:
    """A class whose constants come in the order of their names; torch writes them in the order of a set."""
    constants = iter(sorted(CONSTANT.findall(definition)))
    return CONSTANT.sub(lambda _: next(constants), definition)


def _tensors(built: Path, shipped: Path) -> Iterable[str]:
    expected, given = (load_script(path).state_dict() for path in (built, shipped))
    for name in sorted({*expected, *given}):
        if name not in given or name not in expected:
            yield f"tensor {name!r} is {'missing' if name in expected else 'not in the export'}"
            continue
        ours, theirs = expected[name].numpy(), given[name].numpy()
        if (ours.dtype, ours.shape, ours.tobytes()) != (theirs.dtype, theirs.shape, theirs.tobytes()):
            yield tensor_difference(f"tensor {name!r}", ours, theirs)


def _pickles(ours: dict[str, bytes], theirs: dict[str, bytes]) -> Iterable[str]:
    """Attributes and constants, compared as the instructions that build them; nothing is unpickled."""
    for name, what in PICKLES.items():
        expected, given = (_instructions(records.get(name, b".")) for records in (ours, theirs))
        if expected != given:
            pairs = zip(expected, given, strict=False)
            first = next((b for a, b in pairs if a != b), f"{len(given)} instructions instead of {len(expected)}")
            yield f"the {what} differ, first at {short_repr(first)}"


def _instructions(pickled: bytes) -> list[str]:
    """The instructions with their bytes, texts without the numbers in names; what follows the last is part of it."""
    operations = list(pickletools.genops(pickled))
    ends = [start for _, _, start in operations[1:]] + [len(pickled)]
    return [
        f"{operation.name} {NUMBER.sub('', argument) if isinstance(argument, str) else pickled[start:end]!r}"
        for (operation, argument, start), end in zip(operations, ends, strict=True)
    ]


def _graph(built: Path, shipped: Path) -> Iterable[str]:
    """The whole network with every call inlined."""
    expected, given = (_inlined(path) for path in (built, shipped))
    if expected != given:
        pairs = zip(expected.split("\n"), given.split("\n"), strict=False)
        line = next((b for a, b in pairs if a != b), "its end")
        yield f"with its calls inlined the code differs, first at {short_repr(line.strip())}"


def _inlined(path: Path) -> str:
    graph = torch._C._jit_pass_canonicalize(load_script(path).inlined_graph, False)
    text = LOCATION.sub("", graph.str(False))  # torch prints them within loops and branches even so
    return WARNING.sub("", NUMBER.sub("", text))


def _other_records(ours: dict[str, bytes], theirs: dict[str, bytes]) -> Iterable[str]:
    """Records that are not compared above: tensors that are constants or plain attributes, and unknown records.

    Another interpreter may read what this one does not, such as the `bytecode.pkl` of mobile devices.
    """
    for name in sorted({*ours, *theirs}):
        if not _is_code(name) and name not in PICKLES and ours.get(name) != theirs.get(name):
            yield f"part {name!r} of the archive differs"


def _serial_number(shipped: Path) -> Iterable[str]:
    reader = torch._C.PyTorchFileReader(str(shipped))
    if SERIAL_NUMBER in reader.get_all_records() and not DIGITS.fullmatch(reader.get_record(SERIAL_NUMBER)):
        yield f"the serial number of the archive is no number: {short_repr(reader.get_record(SERIAL_NUMBER))}"


def _gaps(built: Path, shipped: Path) -> Iterable[str]:
    """Whether bytes belong to no part of an archive; nothing is said if this release of torch packs in another way."""
    if _is_packed(built) and not _is_packed(shipped):
        yield "the archive holds bytes that belong to none of its parts"


def _is_packed(path: Path) -> bool:
    """Whether an archive holds nothing but its members, padded by torch, and its directory."""
    blob = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        members = sorted(archive.infolist(), key=lambda member: member.header_offset)
        directory, size = archive.start_dir, sum(CENTRAL + len(member.filename.encode()) for member in members)
    starts = [*(member.header_offset for member in members), directory]
    whole = starts[0] == 0 and len(blob) - directory - size in (END, ZIP64_END + END)
    parts = [blob[start:stop] for start, stop in itertools.pairwise(starts)]
    return whole and all(map(_is_member, members, parts))


def _is_member(member: zipfile.ZipInfo, part: bytes) -> bool:
    """Whether the bytes up to the next member are a header, padding of the letter Z, the data and their descriptor."""
    descriptor = b"PK\7\b" + struct.pack("<3I", member.CRC, member.compress_size, member.file_size)
    body = part[: -len(descriptor)] if part.endswith(descriptor) else part
    data, name = len(body) - member.compress_size, member.filename.encode()
    padding = data - LOCAL - len(name)
    extra = b"FB" + struct.pack("<H", padding - 4) + b"Z" * (padding - 4) if padding >= 4 else b""
    return part[LOCAL:data] == name + extra and is_all_of(member, body[data:])
