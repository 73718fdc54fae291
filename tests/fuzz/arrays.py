"""What can be wrong with .npy, .npz, .zip and HDF5 files."""

from __future__ import annotations

import io
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import h5py
import numpy as np
from numpy.lib import format as npy

SHAPES = (
    "()", "(0,)", "(5,)", "(0, 12)", "(3, 0)", "(1000000, 12)", "(1000000000000, 12)", "(-1, 12)", "(3, 12, 1)",
    "(9223372036854775807, 9223372036854775807)", "(True, 12)", "[3, 12]", "(3.0, 12)", "None", "('a', 12)",
    "(" + "1," * 40 + ")", "(999999999999999999999999,)",
)  # fmt: skip
DTYPES = (
    "|O", "<U4", "|S4", "|V8", "<c8", "<M8[s]", "|b1", "|i1", "<i8", "<u8", ">f4", "<f8", "<f16", "nonsense", "<f3",
    "", "[('a', '<f4'), ('b', '<i4')]",
)  # fmt: skip


def odd_array(rng: Random, like: np.ndarray) -> np.ndarray:
    """Return an array that is not what features should be."""
    frames, width = like.shape
    make: dict[str, Callable[[], np.ndarray]] = {
        "scalar": lambda: np.array(1.0),
        "1-D": lambda: like[0],
        "3-D": lambda: like[None],
        "no frames": lambda: like[:0],
        "no width": lambda: like[:, :0],
        "one frame": lambda: like[:1],
        "narrow": lambda: like[:, :5],
        "transposed": lambda: like.T,
        "NaN": lambda: np.where(np.arange(frames)[:, None] == 0, np.nan, like),
        "inf": lambda: np.full_like(like, np.inf),
        "zeros": lambda: np.zeros_like(like),
        "huge numbers": lambda: np.full(like.shape, 1e300),
        "tiny numbers": lambda: np.full(like.shape, 1e-300),
        "booleans": lambda: like > 0,
        "int8": lambda: np.ones(like.shape, np.int8),
        "uint64": lambda: np.full(like.shape, 2**63, np.uint64),
        "complex": lambda: like.astype(np.complex64),
        "strings": lambda: like.astype("U8"),
        "bytes": lambda: like.astype("S8"),
        "times": lambda: np.zeros(like.shape, "datetime64[s]"),
        "structured": lambda: np.zeros(frames, [("a", "f4"), ("b", "i4")]),
        "objects": lambda: np.array([[None, "x"]] * frames, dtype=object),
        "big-endian": lambda: like.astype(">f4"),
        "long double": lambda: like.astype(np.longdouble),
        "Fortran order": lambda: np.asfortranarray(like),
        "many frames": lambda: np.zeros((200_000, width), np.float16),
        "one column": lambda: like[:, :1],
        "void": lambda: np.zeros(frames, "V16"),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make[rng.choice(list(make))]()


def bad_npy(rng: Random, path: Path) -> str:
    """Let a header lie, or store another array."""
    array = np.load(path)
    if rng.random() < 0.5:
        other = odd_array(rng, array)
        np.save(path, other, allow_pickle=True)
        return f"{other.dtype} {other.shape}"
    path.write_bytes(lying_npy(rng, array))
    return f"header {path.read_bytes()[10:90]!r}"


def lying_npy(rng: Random, array: np.ndarray) -> bytes:
    """Return an .npy file whose header does not tell what follows."""
    descr, shape, order = repr(npy.dtype_to_descr(array.dtype)), str(array.shape), "False"
    how = rng.choice(["shape", "shape", "dtype", "order", "deep", "keys", "version", "length"])
    if how == "shape":
        shape = rng.choice(SHAPES)
    elif how == "dtype":
        other = rng.choice(DTYPES)
        descr = other if other.startswith("[") else repr(other)
    elif how == "order":
        order = rng.choice(["None", "'x'", "2"])
    header = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}"
    if how == "deep":
        header = "(" * 900 + ")" * 900
    elif how == "keys":
        header = rng.choice(["{}", "[]", "3", "{'descr': '<f4'}", "\0", "{'a': " * 50, "__import__('os')"])
    length = len(header) + 1 if how != "length" else rng.choice([0, 5, 65535])
    version = b"\x01\x00" if how != "version" else rng.choice([b"\x00\x00", b"\x09\x09", b"\x02\x00"])
    return npy.MAGIC_PREFIX + version + length.to_bytes(2, "little") + header.encode() + b"\n" + array.tobytes()


def bad_npz(rng: Random, path: Path) -> str:
    """Change the members of an .npz file."""
    with np.load(path) as archive:
        array = archive["features"]
    how = rng.choice(["odd array", "lying header", "two", "renamed", "not an array", "none", "text", "odd name"])
    whole = io.BytesIO()
    np.save(whole, array)
    members: dict[str, bytes] = {"features.npy": whole.getvalue()}
    if how == "odd array":
        other = io.BytesIO()
        np.save(other, odd_array(rng, array), allow_pickle=True)
        members = {"features.npy": other.getvalue()}
    elif how == "lying header":
        members = {"features.npy": lying_npy(rng, array)}
    elif how == "two":
        members = {"a.npy": whole.getvalue(), "b.npy": whole.getvalue()}
    elif how == "renamed":
        members = {rng.choice(["x.npy", "file.npy", "features", ".npy", "f.npy.npy"]): whole.getvalue()}
    elif how == "not an array":
        members = {"features.npy": rng.choice([b"", b"hello", b"\x93NUMPY"])}
    elif how == "none":
        members = {}
    elif how == "text":
        members = {"features": b"hello", "notes.txt": b"hello"}
    elif how == "odd name":
        members = {rng.choice(["../features.npy", "/features.npy", "a/b.npy", "ü.npy", " .npy"]): whole.getvalue()}
    _write_zip(path, members)
    return how


def bad_zip(rng: Random, path: Path) -> str:
    """Change the members of any zip archive, checkpoints of torch included."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    names = list(members)
    name = rng.choice(names)
    how = rng.choice(["missing", "renamed", "emptied", "cut", "noise", "bits", "all gone", "folder", "packed"])
    if how == "missing":
        del members[name]
    elif how == "renamed":
        members[rng.choice([f"{name}x", "../x", "x.txt", f"x/{name}"])] = members.pop(name)
    elif how == "emptied":
        members[name] = b""
    elif how == "cut":
        members[name] = members[name][: len(members[name]) // 2]
    elif how == "noise":
        members[name] = rng.randbytes(50)
    elif how == "bits":
        content = bytearray(members[name] or b"\0")
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        members[name] = bytes(content)
    elif how == "all gone":
        members = {}
    elif how == "folder":
        members[f"{name}/"] = b""
    _write_zip(path, members, packed=how == "packed")
    return f"member {name}: {how}"


def _write_zip(path: Path, members: dict[str, bytes], *, packed: bool = False) -> None:
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w") as archive:
        warnings.simplefilter("ignore")
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED)


def bad_hdf5(rng: Random, path: Path) -> str:
    """Change one thing in an HDF5 file: a dataset, a name, a link, an attribute."""
    with h5py.File(path, "r+") as file:
        name = rng.choice(sorted(file))
        content = file[name][()]
        how = rng.choice(list(HDF5))
        HDF5[how](rng, file, name, content)
    return f"{name}: {how}"


def _put(file: Any, name: str, value: Any, **options: Any) -> None:
    del file[name]
    file.create_dataset(name, data=value, **options)


def _odd(rng: Random, file: Any, name: str, content: Any) -> None:
    frames = content if np.ndim(content) == 2 else np.zeros((4, 12), np.float32)
    other = odd_array(rng, frames)
    if other.dtype.kind in "UM":
        other = other.astype("S8")
    if other.dtype.kind == "O":
        other = np.array([["x", "y"]], dtype=h5py.string_dtype())
    _put(file, name, other)


def _huge(rng: Random, file: Any, name: str, content: Any) -> None:
    del file[name]
    rows = rng.choice([10**7, 10**10, 2**40])
    file.create_dataset(name, (rows, 12), "f4", chunks=(1024, 12))


def _group(rng: Random, file: Any, name: str, content: Any) -> None:
    del file[name]
    group = file.create_group(name)
    if rng.random() < 0.5:
        group["features"] = content


def _link(target: Callable[[str], Any]) -> Callable[[Random, Any, str, Any], None]:
    def put(rng: Random, file: Any, name: str, content: Any) -> None:
        del file[name]
        file[name] = target(name)

    return put


def _hard_loop(rng: Random, file: Any, name: str, content: Any) -> None:
    group = file.create_group("loop")
    group["again"] = file["/"]
    group[name] = file[name]


def _name(rng: Random, file: Any, name: str, content: Any) -> None:
    odd = rng.choice(["a/b", "ü\u2028", " ", "x" * 300, "..x", "a b\n", "-x", "[x]", "a/b/c", "%s", "~", "..", "con:"])
    file[odd] = content
    if rng.random() < 0.5:
        file.id.links.create_hard(rng.choice([b"\xff\xfe", b"\xed\xa0\x80"]), file.id, name.encode())


def _attributes(rng: Random, file: Any, name: str, content: Any) -> None:
    values: tuple[Any, ...] = (
        np.nan, np.inf, -1.0, 0, "fast", [1, 2], 1e-320, 1e308, h5py.Empty("f4"), b"\xff", np.bool_(True), 10**18,
    )  # fmt: skip
    file[name].attrs[rng.choice(["duration", "fps", "frames", "format"])] = rng.choice(values)
    file.attrs[rng.choice(["fps", "feature_fps", "format", "width", "duration"])] = rng.choice(values)


def _virtual(rng: Random, file: Any, name: str, content: Any) -> None:
    del file[name]
    layout = h5py.VirtualLayout((4, 12), "f4")
    layout[:] = h5py.VirtualSource("nowhere.h5", "x", (4, 12))
    file.create_virtual_dataset(name, layout)


def _reference(rng: Random, file: Any, name: str, content: Any) -> None:
    root = file["/"].ref
    _put(file, name, np.array([[root]], dtype=h5py.ref_dtype), dtype=h5py.ref_dtype)


def _ragged(rng: Random, file: Any, name: str, content: Any) -> None:
    del file[name]
    made = file.create_dataset(name, (2,), h5py.vlen_dtype("f4"))
    made[0] = [1, 2]


def _type(rng: Random, file: Any, name: str, content: Any) -> None:
    del file[name]
    file[name] = np.dtype("f4")


def _nothing(rng: Random, file: Any, name: str, content: Any) -> None:
    for key in list(file):
        del file[key]


def _filtered(rng: Random, file: Any, name: str, content: Any) -> None:
    _put(file, name, np.zeros((4, 12), "f4"), chunks=(2, 12), fletcher32=True, scaleoffset=2)


HDF5: dict[str, Callable[[Random, Any, str, Any], None]] = {
    "odd dataset": _odd,
    "another odd dataset": _odd,
    "huge and sparse": _huge,
    "group": _group,
    "dangling link": _link(lambda name: h5py.SoftLink("/nowhere")),
    "link to itself": _link(lambda name: h5py.SoftLink(f"/{name}")),
    "external link": _link(lambda name: h5py.ExternalLink("nowhere.h5", "/x")),
    "loop of groups": _hard_loop,
    "odd names": _name,
    "odd attributes": _attributes,
    "virtual": _virtual,
    "references": _reference,
    "ragged": _ragged,
    "a type": _type,
    "nothing": _nothing,
    "filtered": _filtered,
    "empty": lambda rng, file, name, content: _put(file, name, h5py.Empty("f4")),
    "scalar": lambda rng, file, name, content: _put(file, name, 1.5),
    "missing": lambda rng, file, name, content: file.__delitem__(name),
}
