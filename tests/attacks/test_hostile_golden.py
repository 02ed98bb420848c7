"""golden.npz written to break its reader, in bundles whose hashes agree."""

from __future__ import annotations

import dataclasses
import io
import os
import pickle
import shutil
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from robust_edge_runtimes.core import golden as module
from robust_edge_runtimes.core.bundle import open_bundle
from robust_edge_runtimes.core.errors import BundleError
from robust_edge_runtimes.core.golden import Golden
from tests.attacks.mutations import packed_by_hand

NAMES = tuple(field.name for field in dataclasses.fields(Golden) if field.default is dataclasses.MISSING)


def npy(array):
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.asarray(array))
    return buffer.getvalue()


def raw_npy(header, data=b"", version=(1, 0)):
    text = header if isinstance(header, bytes) else header.encode()
    size = struct.pack("<H" if version[0] == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes(version) + size + text + data


def described(descr, shape, data=b""):
    return raw_npy(f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}", data)


@pytest.fixture
def members(golden):
    return {f"{name}.npy": npy(getattr(golden, name)) for name in NAMES}


def archive(members, compression=zipfile.ZIP_DEFLATED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return buffer.getvalue()


@pytest.fixture
def refused(bundle, forge):
    """Put bytes in golden.npz's place, hashes and all; opening finds nothing, reading does."""

    def check(blob, match=None):
        (bundle / "golden.npz").write_bytes(blob)
        opened = open_bundle(forge(bundle))
        with pytest.raises(BundleError, match=match):
            opened.golden()

    return check


def test_the_tools_of_these_tests_write_what_is_accepted(bundle, forge, members, golden):
    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        (bundle / "golden.npz").write_bytes(archive(members, compression))
        assert np.array_equal(open_bundle(forge(bundle)).golden().clean, golden.clean)


def hiding(members):
    """A zip file with a member that its directory does not list."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, data in {"hidden.npy": b"secret" * 9, **members}.items():
            file.writestr(name, data)
        file.filelist.pop(0)
    return buffer.getvalue()


def with_comment(members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, data in members.items():
            file.writestr(name, data)
        file.comment = b"secret"
    return buffer.getvalue()


@pytest.mark.parametrize(
    "hide",
    [
        hiding,
        with_comment,
        lambda members: b"secret" + archive(members),
        lambda members: archive(members) + b"secret",
        lambda members: hiding({name: members[name] for name in reversed(members)}),
    ],
)
def test_bytes_that_belong_to_no_array_are_refused(hide, refused, members):
    refused(hide(members))


@pytest.mark.parametrize("extra", [lambda *sizes: b"", lambda *sizes: struct.pack("<HHQQ", 1, 16, *sizes)])
def test_an_archive_that_is_packed_by_hand_is_accepted(extra, bundle, forge, members, golden):
    (bundle / "golden.npz").write_bytes(packed_by_hand(members, extra=extra))
    assert np.array_equal(open_bundle(forge(bundle)).golden().clean, golden.clean)


def test_bytes_within_a_member_that_are_no_array_are_refused(refused, members):
    refused(packed_by_hand(members, behind=b"secret"), "bytes that belong to no array")
    refused(packed_by_hand(members, extra=lambda *_: struct.pack("<HH", 1, 16) + b"16 secret bytes!"), "belong to no")
    refused(packed_by_hand(members, extra=lambda *_: b"secret of 20 bytes.."), "bytes that belong to no array")


@pytest.mark.parametrize("text", [" # secret", " " * 1000, "\n" * 9, " \n "])
def test_a_header_with_more_than_numpy_writes_is_refused(text, refused, members, golden):
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {golden.clean.shape}, }}"
    data = golden.clean.tobytes()
    accepted = raw_npy(header + "   \n", data)
    assert np.array_equal(module._read_member(accepted, "clean.npy"), golden.clean)
    refused(archive({**members, "clean.npy": raw_npy(header + text + "\n", data)}), "numpy does not write")


def test_a_hidden_member_is_named(refused, members):
    refused(hiding(members), "bytes that belong to no array")


class Payload:
    """Unpickling it makes a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("name", NAMES)
def test_no_code_is_run_by_object_arrays(refused, members, tmp_path, name):
    marker = tmp_path / "ran"
    objects = np.array([Payload(marker)], object)
    pickle.loads(pickle.dumps(objects, 2))  # it would have run
    assert marker.exists()
    marker.rmdir()
    fitting = pickle.dumps(objects, 2)  # followed by what makes it as long as its header says; pickle stops before
    fitting += b"\0" * (-len(fitting) % 8)
    payloads = (
        described("'|O'", f"({len(fitting) // 8},)", fitting),
        described("[('a', '|O')]", f"({len(fitting) // 8},)", fitting),
        described("'|O'", "(1,)", pickle.dumps(objects, 2)),
        described("'|O'", "()", pickle.dumps(Payload(marker))),
        described("[('a', '|O')]", "(1,)", pickle.dumps(objects, 2)),
        pickle.dumps(Payload(marker)),
    )
    for payload in payloads:
        refused(archive({**members, f"{name}.npy": payload}))
        assert not marker.exists()
    refused(payloads[-1])
    assert not marker.exists()


@pytest.mark.parametrize(
    "header",
    [
        "",
        "{}",
        "()",
        "{'descr': '<f4'}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (60, 1, 4, 4), 'more': 1}",
        "{'descr': '<f4', 'fortran_order': 3, 'shape': (1,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': ('a',)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': 60}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-60, -1, 4, 4)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2**70,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1180591620717411303424,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387904, 4)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': " + "(1," * 70 + ")" * 70 + "}",
        "{'descr': 3, 'fortran_order': False, 'shape': (1,)}",
        "{'descr': 'nonsense', 'fortran_order': False, 'shape': (1,)}",
        "{'descr': [('a',)], 'fortran_order': False, 'shape': (1,)}",
        "{'descr': ('<f4', (1000000000, 1000000000)), 'fortran_order': False, 'shape': (1,)}",
        "{'descr': '|V2147483648', 'fortran_order': False, 'shape': (1,)}",
        "{'descr': '|S0', 'fortran_order': False, 'shape': (9223372036854775807,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (((((((((((",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1,), \x00}",
        "{1: 2, 'a': 3, None: 4}",
        "__import__('os').mkdir('ran')",
        "'''",
        "[" * 3000 + "]" * 3000,
        "-" * 9000 + "1",
        "9" * 9000,
        "\\",
    ],
    ids=range(30),
)
@pytest.mark.filterwarnings("ignore::UserWarning")  # numpy's, on headers it takes for Python 2's
def test_malformed_headers_are_refused(refused, members, header):
    for version in ((1, 0), (2, 0), (3, 0), (9, 9)):
        refused(archive({**members, "clean.npy": raw_npy(header, b"\0" * 64, version)}))


def test_a_header_that_promises_more_than_follows_costs_no_memory(bundle, forge, members):
    """64 GiB promised, 64 bytes there."""
    promise = described("'<f4'", "(1073741824, 1, 4, 4)", b"\0" * 64)
    (bundle / "golden.npz").write_bytes(archive({**members, "clean.npy": promise}))
    opened = open_bundle(forge(bundle))
    tracemalloc.start()
    with pytest.raises(BundleError):
        opened.golden()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 << 20


@pytest.mark.parametrize("fraction", [0.2, 0.9])
def test_an_array_cut_short_inside_the_archive(refused, members, fraction):
    whole = members["clean.npy"]
    refused(archive({**members, "clean.npy": whole[: int(fraction * len(whole))]}))


def test_bytes_behind_an_array_are_refused(refused, members):
    refused(archive({**members, "clean.npy": members["clean.npy"] + b"\0"}), "another size")


def test_other_members(refused, members):
    refused(archive({}), "must hold")
    for name in members:
        refused(archive({key: data for key, data in members.items() if key != name}), "must hold")
    for extra in ("extra.npy", "../clean.npy", "/clean.npy", "clean.npy/", "CLEAN.npy", "x" * 60_000):
        refused(archive({**members, extra: members["clean.npy"]}), "must hold")
        swapped = dict(members)
        swapped[extra] = swapped.pop("clean.npy")
        refused(archive(swapped), "must hold")


@pytest.mark.filterwarnings("ignore:Duplicate name")  # zipfile's, while the test writes
def test_duplicate_member_names_are_refused(refused, members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, data in [*members.items(), ("clean.npy", members["attacked.npy"])]:
            file.writestr(name, data)
    refused(buffer.getvalue(), "must hold")


def test_a_zip_bomb_is_not_unpacked(bundle, forge, members, monkeypatch):
    """4 MB of zeros in 4 kB, a thousand to one, and a limit below it."""
    monkeypatch.setattr(module, "MAX_GOLDEN_BYTES", 1 << 20)
    blob = archive({**members, "clean.npy": described("'<f4'", "(65536, 1, 4, 4)", b"\0" * (4 << 20))})
    assert len(blob) < 1 << 16
    (bundle / "golden.npz").write_bytes(blob)
    opened = open_bundle(forge(bundle))
    tracemalloc.start()
    with pytest.raises(BundleError, match="unpacks to more than"):
        opened.golden()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


def patched(blob, member, *, size=None, method=None, flags=None):
    """The archive with other facts about one member in its central directory, and in its local header."""
    data = bytearray(blob)
    with zipfile.ZipFile(io.BytesIO(blob)) as file:
        local = file.getinfo(member).header_offset
    central = data.index(b"PK\x01\x02")
    while data[central + 46 : central + 46 + len(member)] != member.encode():
        central = data.index(b"PK\x01\x02", central + 4)
    for base, flag_at, method_at, size_at in ((local, 6, 8, 22), (central, 8, 10, 24)):
        if flags is not None:
            struct.pack_into("<H", data, base + flag_at, flags)
        if method is not None:
            struct.pack_into("<H", data, base + method_at, method)
        if size is not None:
            struct.pack_into("<I", data, base + size_at, size)
    return bytes(data)


def test_false_sizes_are_refused(refused, members):
    blob = archive(members)
    refused(patched(blob, "clean.npy", size=0xFFFFFFFE), "unpacks to more than")
    for size in (0, 1, 64, len(members["clean.npy"]) - 1, len(members["clean.npy"]) + 1):
        refused(patched(blob, "clean.npy", size=size))


def test_a_zip_bomb_with_a_false_size_is_stopped(bundle, forge, members):
    """64 MB of zeros that call themselves 200 bytes."""
    blob = archive({**members, "clean.npy": described("'<f4'", "(1048576, 1, 4, 4)", b"\0" * (64 << 20))})
    (bundle / "golden.npz").write_bytes(patched(blob, "clean.npy", size=200))
    opened = open_bundle(forge(bundle))
    tracemalloc.start()
    with pytest.raises(BundleError):
        opened.golden()
    held = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert held < 128 << 20


def test_a_changed_byte_of_an_unpacked_array_is_found_by_its_checksum(refused, members):
    blob = archive(members, zipfile.ZIP_STORED)
    for name in members:
        changed = bytearray(blob)
        changed[blob.index(members[name]) + len(members[name]) - 1] ^= 1
        refused(bytes(changed), "CRC")


@pytest.mark.parametrize("method", [1, 6, 9, 12, 14, 93, 99, 65535])
def test_other_compression_methods(refused, members, method):
    refused(patched(archive(members), "labels.npy", method=method))


@pytest.mark.parametrize("flags", [1, 0x20, 0x40, 0x800, 0x2000])
def test_encrypted_and_patched_members(refused, members, flags):
    blob = patched(archive({**members, "labels.npy": b"\xff" * 40}), "labels.npy", flags=flags)
    refused(blob)


@pytest.mark.parametrize(
    "blob",
    [
        b"",
        b"PK",
        b"PK\x05\x06" + b"\0" * 18,
        b"\x93NUMPY\x01\x00",
        npy(np.zeros(3)),
        b"text",
        b"PK\x03\x04" + b"\xff" * 60,
    ],
    ids=["empty", "magic", "no members", "npy magic", "npy", "text", "broken"],
)
def test_malformed_archives_are_refused(refused, blob):
    refused(blob)


def test_polyglot_files_are_refused(refused, members):
    """An array for who reads the beginning, an archive for who reads the end: the end counts, and is checked."""
    refused(npy(np.zeros(3)) + archive({}))
    refused(archive(members) + npy(np.zeros(3)) * 1000)


@pytest.fixture(scope="module")
def victim(sealed, tmp_path_factory):
    return shutil.copytree(sealed, tmp_path_factory.mktemp("victim") / "bundle")


def attempt(victim, blob):
    (victim / "golden.npz").write_bytes(blob)
    try:
        found = module.read_golden(victim / "golden.npz", MANIFEST[victim])
    except BundleError:
        return
    assert found.clean.shape == found.attacked.shape
    assert found.clean.dtype == np.float32
    assert np.isfinite(found.clean_logits).all()
    assert found.labels.min() >= 0
    assert found.labels.max() < 4


MANIFEST = {}


@settings(max_examples=300, suppress_health_check=list(HealthCheck))
@given(st.data())
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_random_bytes_raise_only_bundle_errors(victim, opened, golden, data):
    """Packed and unpacked archives with bytes changed, removed, inserted and cut; headers most of all."""
    MANIFEST[victim] = opened.manifest
    small = {name: getattr(golden, name)[:2] for name in NAMES if name != "tolerance"}
    members = {f"{name}.npy": npy(array) for name, array in {**small, "tolerance": golden.tolerance}.items()}
    if data.draw(st.booleans()):
        name = data.draw(st.sampled_from(sorted(members)))
        members[name] = mutated(data, members[name], 128)
    blob = archive(members, data.draw(st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])))
    if data.draw(st.booleans()):
        blob = mutated(data, blob, len(blob))
    attempt(victim, blob)


def mutated(data, blob, reach):
    changed = bytearray(blob)
    for _ in range(data.draw(st.integers(1, 4))):
        offset = data.draw(st.integers(0, min(reach, len(changed))))
        action = data.draw(st.sampled_from(["change", "remove", "insert", "cut"]))
        some = data.draw(st.binary(min_size=1, max_size=6))
        if action == "change":
            changed[offset : offset + len(some)] = some
        elif action == "insert":
            changed[offset:offset] = some
        elif action == "remove":
            del changed[offset : offset + len(some)]
        else:
            del changed[offset + 60 :]
    return bytes(changed)
