"""The operator's YAML, also when it is somebody else's file: an input is the text."""

from collections.abc import Iterable
from pathlib import Path
from random import Random

from pool.config import Settings, loads
from pool.errors import ConfigError
from tests.fuzz.mutate import bend_text
from tests.fuzz.target import Target

_ROOT = Path(__file__).parents[3]
_ENVIRON = {"A": "5", "B": "text", "C": "", "D": "${A}", "E": "on", "F": "\udc80"}
_WORDS = tuple(
    b"""
pools: default: sandbox: daemon: size: min: max: limits: max_limits: memory: wall_s: preload: modules: recycle:
screen: engine: image: reuse_scope: backlog: null true false yes on 0 -1 0660 1:30 1_000 1e400 .inf .nan 0x10
512m 64g 1.5 "" '' ~ ${A} ${B} ${C} ${D} ${F} ${X} ${X:y} $${A} ${A:${B}} ${ &a *a !!python/object:os.system
!!binary << - ? : | > [ ] { } , # --- ... %YAML
""".split()
)


def one(data: bytes) -> None:
    text = data.decode(errors="surrogateescape" if data[:1] < b"\x80" else "replace")
    try:
        settings: Settings | ConfigError = loads(text, environ=_ENVIRON)
    except ConfigError as error:
        settings = error
    assert isinstance(settings, Settings) or settings.problems


def mutate(data: bytes, random: Random) -> bytes:
    return bend_text(data, random, _WORDS)


def seeds() -> Iterable[bytes]:
    whole = b"\n".join(
        line.partition(b"  #")[0].rstrip()
        for line in (_ROOT / "config/pool.yaml").read_bytes().splitlines()
        if line.strip() and not line.lstrip().startswith(b"#")
    )
    yield whole
    yield (_ROOT / "examples/demo.yaml").read_bytes()
    yield b"{}"
    yield b"pools: {default: {size: {min: 1, max: 2}, limits: {memory: 64m, wall_s: 0.5}}, b: {}}"
    yield b"pools:\n  default:\n    preload:\n      modules: [numpy, pandas]\n"
    yield b"a: &a [1]\nb: *a\n"
    yield b"daemon: {run_dir: '${B:/run/x}', submit_mode: '0660', log_level: ${B}}\n"
    yield b"[" * 40
    yield b"pools: !!python/object/apply:os.system ['true']\n"
    yield b"--- 1\n--- 2\n"


TARGET = Target(
    contract="ConfigError with its problems, or settings", one=one, mutate=mutate, seeds=seeds, words=_WORDS,
    inputs=100_000, max_len=2048, base_bytes=2 << 20, per_byte=4000,
)  # fmt: skip
