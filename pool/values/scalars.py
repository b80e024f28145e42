"""Single values of the standard library: ints of any size, floats, text, bytes, Decimal, Fraction, UUID, paths.

A subclass travels as its base. A path travels as the pure path of its kind, which has no method that opens files.
"""

from __future__ import annotations

import struct
import uuid
from decimal import Decimal
from pathlib import PosixPath, PurePath, PurePosixPath, PureWindowsPath, WindowsPath
from typing import TYPE_CHECKING, Any

from pool.values.codes import MAX_DECIMAL_DIGITS, MAX_FRACTION_BYTES, MAX_INT_BYTES, Code
from pool.values.reader import LeafFn, Reader, ReadFn, exact_ints
from pool.values.writer import RefusalError, WriteFn, Writer

if TYPE_CHECKING:
    from fractions import Fraction

#: The digits, a sign, a point and an exponent.
_MAX_DECIMAL_TEXT = MAX_DECIMAL_DIGITS + 16
_COMPLEX = struct.Struct("<dd")
_real_of = complex.__dict__["real"].__get__
_imag_of = complex.__dict__["imag"].__get__


def _write_constant(writer: Writer, value: object) -> None:
    writer.scalar(value)


def _write_int(writer: Writer, value: int) -> None:
    number = int.__int__(value)
    if -(1 << 63) <= number < 1 << 64:
        writer.scalar(number)
    else:
        count = number.bit_length() // 8 + 1
        if count > MAX_INT_BYTES:
            raise RefusalError(
                f"an int may have {MAX_INT_BYTES} bytes; carry it as bytes or text, or a float", kind=int
            )
        writer.leaf(Code.BIG_INT, number.to_bytes(count, "little", signed=True))


def _write_float(writer: Writer, value: float) -> None:
    writer.scalar(float.__float__(value))


def _write_complex(writer: Writer, value: complex) -> None:
    writer.leaf(Code.COMPLEX, _COMPLEX.pack(_real_of(value), _imag_of(value)))


def _write_str(writer: Writer, value: str) -> None:
    writer.text(str.__str__(value))


def _write_bytes(writer: Writer, value: bytes) -> None:
    writer.text(bytes.__getitem__(value, slice(None)))


def _write_bytearray(writer: Writer, value: bytearray) -> None:
    if bytearray.__len__(value) > writer.left:
        writer.over_limit()
    own = value if type(value) is bytearray else bytearray.__getitem__(value, slice(None))
    writer.leaf(Code.BYTEARRAY, bytes(own))


def _write_decimal(writer: Writer, value: Decimal) -> None:
    if Decimal.is_snan(value):
        raise RefusalError("a signaling NaN raises when it is compared or hashed; carry Decimal('NaN')", kind=Decimal)
    if Decimal.is_finite(value) and abs(Decimal.adjusted(value)) > MAX_DECIMAL_DIGITS:
        raise RefusalError(f"a Decimal may have {MAX_DECIMAL_DIGITS} digits before or after its point", kind=Decimal)
    text = Decimal.__str__(value)
    if len(text) > _MAX_DECIMAL_TEXT:
        raise RefusalError(f"a Decimal may have {MAX_DECIMAL_DIGITS} digits; round it, or carry its text", kind=Decimal)
    writer.leaf(Code.DECIMAL, text.encode("ascii"))


def _write_fraction(writer: Writer, value: Fraction) -> None:
    parts = exact_ints([value.numerator, value.denominator], 2)
    if max(part.bit_length() for part in parts) >= 8 * MAX_FRACTION_BYTES:
        raise RefusalError(
            f"a Fraction may have {MAX_FRACTION_BYTES} bytes above and below; carry a float", kind=type(value)
        )
    writer.composite(value, Code.FRACTION, numerator=parts[0], denominator=parts[1])


def fraction_writers() -> dict[type, WriteFn]:
    from fractions import Fraction

    return {Fraction: _write_fraction}


def _write_uuid(writer: Writer, value: uuid.UUID) -> None:
    writer.leaf(Code.UUID, value.bytes)


def _write_posix_path(writer: Writer, value: PurePath) -> None:
    writer.leaf(Code.POSIX_PATH, PurePath.__str__(value).encode("utf-8", "surrogatepass"))


def _write_windows_path(writer: Writer, value: PurePath) -> None:
    writer.leaf(Code.WINDOWS_PATH, PurePath.__str__(value).encode("utf-8", "surrogatepass"))


def _read_big_int(payload: bytes) -> int:
    check_int_bytes(len(payload))
    return int.from_bytes(payload, "little", signed=True)


def check_int_bytes(count: int) -> None:
    if count > MAX_INT_BYTES:
        raise ValueError("an int that is too long")


def _read_complex(payload: bytes) -> complex:
    return complex(*_COMPLEX.unpack(payload))


def _read_decimal(payload: bytes) -> Decimal:
    if len(payload) > _MAX_DECIMAL_TEXT:
        raise ValueError("a Decimal that is too long")
    number = Decimal(payload.decode("ascii"))
    check_decimal(number)
    return number


def check_decimal(number: Decimal) -> None:
    if number.is_snan():
        raise ValueError("a signaling NaN")  # it raises as a key, and when pandas prints a column of it
    if number.is_finite() and abs(number.adjusted()) > MAX_DECIMAL_DIGITS:
        raise ValueError("a Decimal that is too large or too small")


def _read_uuid(payload: bytes) -> uuid.UUID:
    return uuid.UUID(bytes=payload)


def _read_posix_path(payload: bytes) -> PurePosixPath:
    return PurePosixPath(payload.decode("utf-8", "surrogatepass"))


def _read_windows_path(payload: bytes) -> PureWindowsPath:
    return PureWindowsPath(payload.decode("utf-8", "surrogatepass"))


def _read_fraction(_reader: Reader, parts: list[Any]) -> Fraction:
    numerator, denominator = exact_ints(parts, 2)
    if max(numerator.bit_length(), denominator.bit_length()) >= 8 * MAX_FRACTION_BYTES:
        raise ValueError("a fraction that is too long")
    from fractions import Fraction

    return Fraction(numerator, denominator)


WRITERS: dict[type, WriteFn] = {
    type(None): _write_constant,
    bool: _write_constant,
    int: _write_int,
    float: _write_float,
    complex: _write_complex,
    str: _write_str,
    bytes: _write_bytes,
    bytearray: _write_bytearray,
    Decimal: _write_decimal,
    uuid.UUID: _write_uuid,
    PurePosixPath: _write_posix_path,
    PosixPath: _write_posix_path,
    PureWindowsPath: _write_windows_path,
    WindowsPath: _write_windows_path,
}
LEAVES: dict[int, LeafFn] = {
    Code.BIG_INT: _read_big_int,
    Code.COMPLEX: _read_complex,
    Code.BYTEARRAY: bytearray,
    Code.DECIMAL: _read_decimal,
    Code.UUID: _read_uuid,
    Code.POSIX_PATH: _read_posix_path,
    Code.WINDOWS_PATH: _read_windows_path,
}
READERS: dict[int, ReadFn] = {Code.FRACTION: _read_fraction}
