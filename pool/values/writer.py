"""The output of `encode`: the head, the out-of-band buffers, the byte budget, and the path to the present part.

Writers of single types are functions `(writer, value) -> None`. They touch a value of a foreign class only through the
unbound methods of the builtin type under it, so that no code of that class runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NoReturn

import msgpack

from pool.values import plain
from pool.values.codes import FREE_CHARGE, MAX_BUFFERS, MAX_DEPTH, OUT_OF_BAND_BYTES, Code

WriteFn = Callable[["Writer", Any], None]

_MARKS = {code: msgpack.packb(msgpack.ExtType(code, b"")) for code in Code}

#: The attributes of a class without asking its metaclass.
mro_of: Callable[[type], tuple[type, ...]] = type.__dict__["__mro__"].__get__
namespace_of: Callable[[type], dict[str, object]] = type.__dict__["__dict__"].__get__
_name_of: Callable[[type], str] = type.__dict__["__name__"].__get__
_module_of: Callable[[type], object] = type.__dict__["__module__"].__get__


class RefusalError(Exception):
    """Why a value cannot be carried; collects the path on its way out."""

    def __init__(self, reason: str, *, kind: type | None = None, limit: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.limit = limit  #: the byte limit that the value is over, if that is why
        self.type = None if kind is None else name_of(kind)
        self.steps: list[str] = []

    @property
    def path(self) -> str:
        return "value" + "".join(reversed(self.steps))


def name_of(kind: type) -> str:
    """`module.Name` for a message; the name of a builtin alone."""
    module = module_of(kind)
    prefix = f"{module}." if module not in {"", "builtins"} else ""
    return f"{prefix}{str.__str__(_name_of(kind))}"[:200]


def module_of(kind: type) -> str:
    """The module that the class claims; empty if the claim is not text."""
    try:
        module = _module_of(kind)
    except AttributeError:
        return ""
    return module if type(module) is str else ""


class Writer:
    """Collects the frames of one value. Do not use it after a RefusalError."""

    def __init__(self, max_bytes: int, resolve: Callable[[type], WriteFn]) -> None:
        self.left = max_bytes
        self.buffers: list[memoryview] = []
        self._max_bytes = max_bytes
        self._charged = 0
        self._head = bytearray()
        self._packer = msgpack.Packer(strict_types=True, buf_size=1024)  # type: ignore[call-arg] # the stubs lack it
        self._parents: list[object] = []
        self._writers: dict[type, WriteFn] = {}
        self._resolve = resolve

    @property
    def head(self) -> bytes:
        return bytes(self._head)

    def write(self, value: object) -> None:
        kind = type(value)
        writer = self._writers.get(kind)
        if writer is None:
            writer = self._writers[kind] = self._resolve(kind)
        writer(self, value)

    def put(self, chunk: bytes) -> None:
        self.spend(len(chunk))
        self._head += chunk

    def spend(self, count: int) -> None:
        """Take `count` bytes from the budget; called before anything of that size is made."""
        self.left -= count
        if self.left < 0:
            self.over_limit()

    def charge(self, count: int) -> None:
        """Count what costs more to decode than its bytes suggest (see codes.py)."""
        self._charged += count

    def finish(self) -> None:
        """Raise if those charges are too large for the size of the frames."""
        if self._charged > FREE_CHARGE + self._max_bytes - self.left:
            raise RefusalError(
                "it holds too many small pandas objects, empty arrays or long ranges for its size; join them with "
                "pd.concat, carry lists, or carry a range as its start, stop and step"
            )

    def over_limit(self) -> NoReturn:
        raise RefusalError(
            f"the value takes more than {self._max_bytes} bytes when it is encoded; carry less of it, "
            "or raise the limit of the pool or the job",
            limit=self._max_bytes,
        )

    def scalar(self, value: object) -> None:
        """None, bool, 64-bit int or float."""
        self.put(self._packer.pack(value))

    def text(self, value: str | bytes) -> None:
        if len(value) > self.left:
            self.over_limit()
        self.put(plain.pack(value))

    def leaf(self, code: Code, payload: bytes) -> None:
        if len(payload) > self.left:
            self.over_limit()
        self.put(self._packer.pack(msgpack.ExtType(code, payload)))

    def try_plain(self, value: list[object] | dict[object, object]) -> bool:
        """Write the value with one call of msgpack if msgpack alone can carry it."""
        try:
            if not plain.is_plain(value, self.left, depth=MAX_DEPTH - len(self._parents)):
                return False
            chunk = plain.pack(value)
        except plain.OverLimitError:
            self.over_limit()
        except OverflowError:  # an int of more than 64 bits somewhere in it
            return False
        self.put(chunk)
        return True

    def array(
        self,
        owner: object,
        items: Iterable[object],
        *,
        count: int,
        code: Code | None = None,
        step: Callable[[int], str] = "[{}]".format,
    ) -> None:
        """A container of `count` items, marked with `code` unless it is a plain list. `step(i)`: item i in a path."""
        self._enter(owner, count, code)
        at = -1
        try:
            for at, item in enumerate(items):  # noqa: B007 - said in the path
                self.write(item)
        except RefusalError as refusal:
            refusal.steps.append(step(at))
            raise
        self._leave(count, at + 1)

    def mapping(self, owner: object, items: Iterable[tuple[object, object]], *, count: int) -> None:
        """A dict whose keys may be anything: key, value, key, value."""
        self._enter(owner, 2 * count, Code.DICT)
        key: object = None
        written = 0
        try:
            for key, item in items:
                self.write(key)
                self.write(item)
                written += 2
        except RefusalError as refusal:
            refusal.steps.append(key_step(key))
            raise
        self._leave(2 * count, written)

    def composite(self, owner: object, code: Code, **parts: object) -> None:
        """A value made of named parts, in this order. The names appear in error paths unless they begin with _."""
        self._enter(owner, len(parts), code)
        name = ""
        try:
            for name, part in parts.items():  # noqa: B007 - said in the path
                self.write(part)
        except RefusalError as refusal:
            refusal.steps.append("" if name.startswith("_") else f".{name}")
            raise
        self._parents.pop()

    def out_of_band(self, buffer: memoryview) -> int | bytes:
        """The entry of a buffer in the head: the number of its frame, or its bytes if it is small."""
        if buffer.nbytes < OUT_OF_BAND_BYTES or len(self.buffers) >= MAX_BUFFERS:
            if buffer.nbytes > self.left:
                self.over_limit()
            return bytes(buffer)
        self.spend(buffer.nbytes)
        self.buffers.append(buffer)
        return len(self.buffers)

    def _enter(self, owner: object, count: int, code: Code | None) -> None:
        if count > self.left:  # an item takes at least one byte
            self.over_limit()
        if len(self._parents) >= MAX_DEPTH:
            self._too_deep(owner)
        self._parents.append(owner)
        self.put(self._packer.pack_array_header(count + (code is not None)))
        if code is not None:
            self.put(_MARKS[code])

    def _leave(self, promised: int, written: int) -> None:
        self._parents.pop()
        if promised != written:
            raise RefusalError("the value changed while it was being encoded; carry a copy of it")

    def _too_deep(self, owner: object) -> NoReturn:
        if len({id(parent) for parent in [*self._parents, owner]}) <= len(self._parents):
            raise RefusalError("the value contains itself; carry a tree, with names or numbers in place of the cycle")
        raise RefusalError(f"the value is nested deeper than {MAX_DEPTH} levels; carry a flatter one")


def key_step(key: object) -> str:
    """The step of an error path for the value of a key or the column of a label."""
    if type(key) is str:
        return f"[{key[:40]!a}]"
    if type(key) is int and key.bit_length() <= 64:
        return f"[{key}]"
    return f"[<{name_of(type(key))}>]"
