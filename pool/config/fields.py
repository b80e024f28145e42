"""The types of the settings: how text is read, which values are allowed, and the sentence that tells the user.

Each function makes the metadata of one annotated field, `Annotated[int, fields.whole(1, 64)]`. A scalar without quotes
in a file is `Plain` text, and the field reads it by its own type. Text in quotes is text, and a value from Python
already has its type. A wrong value becomes one error: "got 0; allowed: a whole number from 1 to 64".
"""

from __future__ import annotations

import keyword
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BeforeValidator, GetCoreSchemaHandler, ValidationError, ValidatorFunctionWrapHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from pool.units import parse_size

DATA_SUFFIXES = (".npy", ".csv", ".parquet", ".feather")

#: The words for true and false in YAML 1.1 and 1.2.
_TRUE, _FALSE = ("true", "yes", "on"), ("false", "no", "off")
#: No leading 0: YAML 1.1 reads 0660 as octal, YAML 1.2 as decimal.
_NUMBER = re.compile(r"[-+]?(0|[1-9][0-9]*)?(\.[0-9]*)?(e[-+]?[0-9]+)?", re.IGNORECASE)
_WHOLE = re.compile(r"[-+]?(0|[1-9][0-9]*)(e\+?[0-9]+)?", re.IGNORECASE)


class Plain(str):
    """A scalar that was written without quotes, or as one whole ${...}. It is read by the type of its key."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Allowed:
    """The metadata: `read` makes a value of `Plain` text, `schema` is for pydantic, `text` for people."""

    text: str
    schema: CoreSchema = field(hash=False)  # a dict
    read: Callable[[str], object] = str

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_wrap_validator_function(self._check, self.schema)

    def _check(self, value: object, handler: ValidatorFunctionWrapHandler) -> object:
        try:
            return handler(self.read(value) if isinstance(value, Plain) else value)
        except ValidationError as error:
            wrong = _reason(error, value)
        except ValueError:
            wrong = f"got {show(value)}"
        raise PydanticCustomError("setting", "{wrong}; allowed: {text}", {"wrong": wrong, "text": self.text})


def _reason(error: ValidationError, value: object) -> str:
    first = error.errors(include_url=False)[0]
    return str(first["ctx"]["error"]) if first["type"] == "value_error" else f"got {show(value)}"


def show(value: object) -> str:
    """The value as it is written in the file."""
    match value:
        case Plain() if not value:
            return "nothing"
        case Plain() if value.isprintable() and " " not in value:
            return f"{value:.60}"
        case str():
            return f"text {str(value)!r:.60}"
        case bool() | int() | float():
            return f"{value!r:.40}".lower()
    return {dict: "a mapping", list: "a list", tuple: "a list", type(None): "nothing"}.get(
        type(value), f"a {type(value).__name__}"
    )


#: Metadata of `X | None`: reads the words for nothing as None, before X reads them.
OrNull = BeforeValidator(
    lambda value: None if isinstance(value, Plain) and value in {"", "~", "null", "Null", "NULL"} else value
)


# ---- how text is read ----


def _flag(text: str) -> bool:
    if text.lower() in _TRUE + _FALSE:
        return text.lower() in _TRUE
    raise ValueError(text)


def _whole(text: str) -> int:
    """A whole number from text: `8`, `10_000` or `1e6`."""
    digits = _ungrouped(text)
    if _WHOLE.fullmatch(digits) is None:
        raise ValueError(text)
    return int(digits) if digits.lstrip("+-").isdecimal() else int(_finite(digits))


def _number(text: str) -> float:
    digits = _ungrouped(text)
    if _NUMBER.fullmatch(digits) is None:
        raise ValueError(text)
    return _finite(digits)


def _finite(digits: str) -> float:
    number = float(digits)
    if abs(number) > 1e300:
        raise ValueError(digits)
    return number


def _ungrouped(text: str) -> str:
    """The text without its underscores: `1_000` is 1000, as in Python."""
    return re.sub(r"(?<=[0-9])_(?=[0-9])", "", text)


# ---- kinds of fields ----


def flag() -> Allowed:
    return Allowed("true or false", core_schema.bool_schema(strict=True), _flag)


def whole(low: int, high: int) -> Allowed:
    schema = core_schema.int_schema(strict=True, ge=low, le=high)
    return Allowed(f"a whole number from {low} to {high}", schema, _whole)


def whole_or(*words: str, low: int, high: int) -> Allowed:
    number = core_schema.int_schema(strict=True, ge=low, le=high)
    either = core_schema.union_schema([number, core_schema.literal_schema(list(words))])
    text = f"{', '.join(words)}, or a whole number from {low} to {high}"
    return Allowed(text, either, lambda given: given if given in words else _whole(given))


def number(low: float, high: float, *, unit: str = "a number") -> Allowed:
    schema = core_schema.float_schema(strict=True, ge=low, le=high, allow_inf_nan=False)
    return Allowed(f"{unit} from {low:g} to {high:.12g}", schema, _number)


def seconds(low: float, high: float) -> Allowed:
    return number(low, high, unit="seconds")


def size(low: str, high: str) -> Allowed:
    """A size in bytes, or text such as 512m. The setting has bytes."""
    in_range = core_schema.int_schema(ge=parse_size(low), le=parse_size(high))
    schema = core_schema.no_info_before_validator_function(parse_size, in_range)
    return Allowed(f"a size from {low} to {high}", schema, _ungrouped)


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
