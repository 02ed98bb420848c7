"""Files that hold more bytes than what they say; every reader ignores them."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib

import onnx
import torch

SECRET = b"#!/bin/sh evil"
UNKNOWN = bytes([0xFA, 0x7F, 6]) + b"secret"  # field 2047 of any message
SERIAL_NUMBER = ".data/serialization_id"


def overridden(blob):
    """ONNX whose graph is given twice; Protobuf merges the fields, and later ones win."""
    return onnx.ModelProto(graph=onnx.GraphProto(name="s" * 1000)).SerializeToString() + blob


def repeated_text(program):
    """The first text of the file a thousand times."""
    program.metadata_props.extend([program.metadata_props[0]] * 1000)


def long_name(program, name="x" * 100_000):
    """Another name of the first constant, wherever it is used."""
    old, program.graph.initializer[0].name = program.graph.initializer[0].name, name
    for node in program.graph.node:
        node.input[:] = [name if item == old else item for item in node.input]


def onnx_bytes(change):
    """Other bytes of model.onnx."""
    return lambda path: (path / "model.onnx").write_bytes(change((path / "model.onnx").read_bytes()))


def archive_bytes(change):
    """Other bytes of model.ts."""
    return lambda path: (path / "model.ts").write_bytes(change((path / "model.ts").read_bytes()))


def behind_the_end(blob):
    return blob + SECRET * 100


def in_the_comment(blob):
    return blob[:-2] + struct.pack("<H", 400) + b"E" * 400


def between_the_parts(blob):
    """In the bytes that align the tensors."""
    assert b"ZZZZZZ" in blob
    return blob.replace(b"ZZZZZZ", b"secret", 1)


def in_the_serial_number(blob):
    """Its 40 digits are replaced; the checksums of the archive follow."""
    with zipfile.ZipFile(io.BytesIO(blob)) as archive:
        member = next(item for item in archive.infolist() if item.filename.endswith(SERIAL_NUMBER))
        number = archive.read(member)
    text = SECRET.ljust(len(number))
    return blob.replace(number, text).replace(struct.pack("<I", member.CRC), struct.pack("<I", zlib.crc32(text)))


def with_part(name):
    """An archive with one more part, whose name may be the message."""

    def change(blob):
        written = io.BytesIO(blob)
        with zipfile.ZipFile(written, "a") as archive:
            top = archive.namelist()[0].split("/")[0]
            archive.writestr(f"{top}/{name}", b"more")
        return written.getvalue()

    return change


def behind_the_pickle(path):
    """Bytes behind the end of the attributes in model.ts, written as torch writes an archive."""
    reader = torch._C.PyTorchFileReader(str(path / "model.ts"))
    parts = {name: reader.get_record(name) for name in reader.get_all_records()}
    parts["data.pkl"] += b"s" * 5000
    writer = torch._C.PyTorchFileWriter(str(path / "model.ts"))
    for name, data in parts.items():
        if name not in ("version", SERIAL_NUMBER, "byteorder") or name == "byteorder":
            writer.write_record(name, data, len(data))
    writer.write_end_of_file()
