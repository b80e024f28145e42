"""Mutations of inputs: as bytes, as msgpack, as text. Each keeps most of an input and changes a little of it."""

from collections.abc import Sequence
from random import Random
from typing import Any

import msgpack

_NUMBERS = (
    0, 1, -1, 127, 128, 255, 256, 65535, 65536, 1 << 31, (1 << 32) - 1, 1 << 62, 1 << 63, (1 << 64) - 1, -(1 << 63),
)  # fmt: skip
_LEAVES: tuple[Any, ...] = (
    *_NUMBERS, None, True, False, 0.0, -1.5, float("nan"), float("inf"), 1e308,
    "", "a", "ok", "\0", "\x1b[2J", "\u202e", "../x", "x" * 200, "ü" * 5000, b"", b"\xff" * 40, [], {},
)  # fmt: skip
_DEPTHS = (3, 16, 16, 16, 16, 16, 16, 200, 400)  #: deep ones are rare, since they take most of the time


def bend_bytes(data: bytes, random: Random) -> bytes:
    """A few bytes changed, cut, doubled, moved or put in."""
    bent = bytearray(data)
    for _ in range(random.choice((1, 1, 1, 2, 4, 8))):
        at = random.randint(0, len(bent))
        span = random.choice((0, 1, 1, 2, 4, 8, 32))
        match random.randrange(5):
            case 0:
                bent[at : at + span] = random.randbytes(span)
            case 1:
                del bent[at : at + span]
            case 2:
                bent[at:at] = bent[at : at + span] * random.choice((1, 2, 16))
            case 3:
                size = random.choice((1, 2, 4, 8))
                bent[at : at + size] = (random.choice(_NUMBERS) % (1 << 8 * size)).to_bytes(size)
            case 4:
                bent[at:at] = random.randbytes(random.choice((1, 4, 16)))
    return bytes(bent)


def bend_msgpack(packed: bytes, random: Random) -> bytes:
    """One place of the tree changed; plain bytes where it is none."""
    try:
        tree = msgpack.unpackb(packed, raw=False, strict_map_key=False, unicode_errors="surrogatepass")
        return msgpack.packb(bend_tree(tree, random), unicode_errors="surrogatepass")  # type: ignore[no-any-return]
    except Exception:  # noqa: BLE001 - what was bent before may be no msgpack any more
        return bend_bytes(packed, random)


def bend_tree(tree: Any, random: Random) -> Any:
    """A way down the tree, and a change at its end."""
    if isinstance(tree, dict) and tree and random.random() < 0.85:
        return _bend_dict(dict(tree), random)
    if isinstance(tree, list) and tree and random.random() < 0.85:
        return _bend_list(list(tree), random)
    return _other(tree, random)


def _bend_dict(tree: dict[Any, Any], random: Random) -> dict[Any, Any]:
    key = random.choice(list(tree))
    match random.randrange(8):
        case 0:
            del tree[key]
        case 1:
            tree[random.choice(("", "x", "type", *map(str, tree)))] = random.choice(_LEAVES)
        case 2:
            tree[key] = tree[random.choice(list(tree))]
        case _:
            tree[key] = bend_tree(tree[key], random)
    return tree


def _bend_list(tree: list[Any], random: Random) -> list[Any]:
    at = random.randrange(len(tree))
    match random.randrange(8):
        case 0:
            del tree[at]
        case 1:
            tree[at:at] = tree[at : at + 2] * random.choice((1, 2, 40))
        case 2:
            tree[at] = tree[random.randrange(len(tree))]
        case _:
            tree[at] = bend_tree(tree[at], random)
    return tree


def _other(leaf: Any, random: Random) -> Any:  # noqa: PLR0911 - one return for each kind
    if isinstance(leaf, msgpack.ExtType) and random.random() < 0.7:
        code = leaf.code if random.random() < 0.7 else random.randrange(128)
        return msgpack.ExtType(code, bend_bytes(leaf.data, random))
    match random.randrange(8):
        case 0:
            return [leaf]
        case 1:
            return {"x": leaf}
        case 2:
            return _nested(leaf, random.choice(_DEPTHS))
        case 3 if isinstance(leaf, int):
            return leaf + random.choice((-1, 1, 256))
        case 4 if isinstance(leaf, str):
            return leaf[: random.randint(0, len(leaf))] + random.choice(("", "\0", "é", "x" * 300))
        case 5 if isinstance(leaf, bytes):
            return bend_bytes(leaf, random)
    return random.choice(_LEAVES)


def _nested(leaf: Any, depth: int) -> Any:
    for _ in range(depth):
        leaf = [leaf]
    return leaf


def bend_text(data: bytes, random: Random, words: Sequence[bytes]) -> bytes:
    """Lines moved, doubled or taken out, words put in the place of others."""
    if random.random() < 0.1:
        return bend_bytes(data, random)
    lines = data.split(b"\n")
    for _ in range(random.choice((1, 1, 2, 3))):
        at = random.randrange(len(lines))
        match random.randrange(7):
            case 0 if len(lines) > 1:
                del lines[at]
            case 1:
                lines.insert(random.randrange(len(lines) + 1), lines[at])
            case 2:
                lines[at] = random.choice((b" ", b"    ", b"\t")) + lines[at]
            case 3:
                lines[at] = lines[at].lstrip()
            case _:
                lines[at] = _reworded(lines[at], random, words)
    return b"\n".join(lines)


def _reworded(line: bytes, random: Random, words: Sequence[bytes]) -> bytes:
    parts = line.split(b" ")
    at = random.randrange(len(parts))
    word = random.choice(words)
    match random.randrange(4):
        case 0:
            parts.insert(at, word)
        case 1:
            parts[at] = word
        case 2:
            cut = random.randint(0, len(parts[at]))
            parts[at] = parts[at][:cut] + word + parts[at][cut:]
        case 3:
            parts[at] = word.join(parts[at:][:2])
    return b" ".join(parts)
