"""What a setting may be: a check and the sentence that says so, always together.

Each function makes the metadata of one annotated field, `Annotated[int, allowed.whole(1, 64)]`. Whatever pydantic finds
wrong with the value becomes a single error, "got 0; allowed: a whole number from 1 to 64".
"""

from __future__ import annotations

import keyword
import os
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import GetCoreSchemaHandler, ValidationError, ValidatorFunctionWrapHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from pool.config.document import Interpolated
from pool.units import parse_size

DATA_SUFFIXES = (".npy", ".csv", ".parquet", ".feather")


@dataclass(frozen=True, slots=True)
class Allowed:
    """The metadata: `schema` is what pydantic checks, `text` says it in words."""

    text: str
    schema: CoreSchema = field(hash=False)  # a dict

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_wrap_validator_function(self._check, self.schema)

    def _check(self, value: object, handler: ValidatorFunctionWrapHandler) -> object:
        candidates = (value.value, value.text) if isinstance(value, Interpolated) else (value,)
        reasons: list[str] = []
        for candidate in candidates:
            try:
                return handler(candidate)
            except ValidationError as error:
                reasons.append(_reason(error, candidate))
        raise PydanticCustomError("setting", "{wrong}; allowed: {text}", {"wrong": reasons[0], "text": self.text})


def _reason(error: ValidationError, value: object) -> str:
    first = error.errors(include_url=False)[0]
    return str(first["ctx"]["error"]) if first["type"] == "value_error" else f"got {show(value)}"


def show(value: object) -> str:
    """The value as the author of the file would name it."""
    match value:
        case Interpolated():
            return show(value.value)
        case str():
            return f"text {value!r:.60}"
        case bool() | int() | float():
            return f"{value!r:.40}".lower()
    return {dict: "a mapping", list: "a list", tuple: "a list", type(None): "nothing"}.get(
        type(value), f"a {type(value).__name__}"
    )


def flag() -> Allowed:
    return Allowed("true or false", core_schema.bool_schema(strict=True))


def whole(low: int, high: int) -> Allowed:
    return Allowed(f"a whole number from {low} to {high}", core_schema.int_schema(strict=True, ge=low, le=high))


def whole_or_auto(low: int, high: int) -> Allowed:
    number = core_schema.int_schema(strict=True, ge=low, le=high)
    either = core_schema.union_schema([number, core_schema.literal_schema(["auto"])])
    return Allowed(f"auto, or a whole number from {low} to {high}", either)


def number(low: float, high: float, *, unit: str = "a number") -> Allowed:
    schema = core_schema.float_schema(strict=True, ge=low, le=high, allow_inf_nan=False)
    return Allowed(f"{unit} from {low:g} to {high:.12g}", schema)


def seconds(low: float, high: float) -> Allowed:
    return number(low, high, unit="seconds")


def size(low: str, high: str) -> Allowed:
    """Bytes, or text such as 512m; kept as bytes."""
    in_range = core_schema.int_schema(ge=parse_size(low), le=parse_size(high))
    schema = core_schema.no_info_before_validator_function(parse_size, in_range)
    return Allowed(f"a size from {low} to {high}", schema)


def text(pattern: str, *, words: str, max_length: int = 255) -> Allowed:
    return Allowed(words, core_schema.str_schema(strict=True, pattern=rf"^(?:{pattern})$", max_length=max_length))


def module() -> Allowed:
    schema = core_schema.no_info_plain_validator_function(_module)
    return Allowed("the dotted name of a Python module", schema)


def directory() -> Allowed:
    return Allowed("an absolute path", core_schema.no_info_plain_validator_function(_absolute))


def data_file() -> Allowed:
    words = f"the absolute path of a readable file that ends in {', '.join(DATA_SUFFIXES)}"
    return Allowed(words, core_schema.no_info_plain_validator_function(_data_file))


def _module(value: object) -> str:
    if not isinstance(value, str) or not all(
        part.isidentifier() and not keyword.iskeyword(part) for part in value.split(".")
    ):
        raise ValueError(f"got {show(value)}")
    return value


def _absolute(value: object) -> Path:
    if not isinstance(value, str | Path) or "\0" in str(value) or not Path(value).is_absolute():
        raise ValueError(f"got {show(value)}")
    return Path(value)


def _data_file(value: object) -> Path:
    path = _absolute(value)
    if path.suffix not in DATA_SUFFIXES:
        raise ValueError(f"{str(path)!r:.200} is not a data file")
    if not path.is_file():
        raise ValueError(f"{str(path)!r:.200} does not exist or is not a file")
    if not os.access(path, os.R_OK):
        raise ValueError(f"{str(path)!r:.200} is not readable")
    return path
