"""The decoders of other people's libraries: JPEG-LS, JPEG 2000, lossless and 12-bit JPEG.

The server runs this file in a process of its own, where a crash or a bomb hurts nobody. So it
imports nothing of this project, and of the libraries only the one that is asked for.
"""

from importlib import import_module
from typing import Any, TypeAlias

LIBRARIES = __file__
"""This file, for the process that runs it."""

Plane: TypeAlias = tuple[str, tuple[int, ...], Any]
"""numpy's name of the samples' type, the shape, and the bytes."""


def decode(payload: bytes, wanted: dict[str, Any]) -> Plane:
    """Decode one compressed frame.

    Args:
        payload: the codestream.
        wanted: ``coding``, ``rows``, ``columns``, ``samples`` and ``bits``, as `Stream` has them.
    """
    return _DECODERS[wanted["coding"]](payload, wanted)


def _shape(wanted: dict[str, Any]) -> tuple[int, ...]:
    size = (wanted["rows"], wanted["columns"])
    return size if wanted["samples"] == 1 else (*size, wanted["samples"])


def _decode_jpeg_ls(payload: bytes, wanted: dict[str, Any]) -> Plane:
    samples, facts = import_module("jpeg_ls").decode_buffer(payload)
    is_planar = wanted["samples"] > 1 and facts["interleave_mode"] == 0
    size = (wanted["rows"], wanted["columns"])
    shape = (wanted["samples"], *size) if is_planar else _shape(wanted)
    return "|u1" if facts["bits_per_sample"] <= 8 else "<u2", shape, samples


def _decode_j2k(payload: bytes, wanted: dict[str, Any]) -> Plane:
    samples = import_module("openjpeg").decode(payload, j2k_format=0)
    return samples.dtype.str, samples.shape, samples.tobytes()


def _decode_by_gdcm(payload: bytes, wanted: dict[str, Any]) -> Plane:
    gdcm = import_module("gdcm")
    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(payload)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    pixel_data = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    pixel_data.SetValue(fragments.__ref__())
    colour = gdcm.PhotometricInterpretation
    bits = max(8, wanted["bits"])  # of fewer gdcm ends the program
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((wanted["columns"], wanted["rows"], 1))
    image.SetDataElement(pixel_data)
    image.SetPhotometricInterpretation(
        colour(colour.MONOCHROME2 if wanted["samples"] == 1 else colour.RGB)
    )
    syntax = gdcm.TransferSyntax
    is_lossless = wanted["coding"] == "JPEG Lossless"
    image.SetTransferSyntax(
        syntax(syntax.JPEGLosslessProcess14_1 if is_lossless else syntax.JPEGExtendedProcess2_4)
    )
    allocated = 8 if bits <= 8 else 16
    image.SetPixelFormat(gdcm.PixelFormat(wanted["samples"], allocated, bits, bits - 1, 0))
    samples = image.GetBuffer().encode("utf-8", "surrogateescape")
    return "|u1" if allocated == 8 else "<u2", _shape(wanted), samples


_DECODERS = {
    "JPEG-LS": _decode_jpeg_ls,
    "JPEG 2000": _decode_j2k,
    "HTJ2K": _decode_j2k,
    "JPEG Lossless": _decode_by_gdcm,
    "JPEG, 12 bit": _decode_by_gdcm,
}
