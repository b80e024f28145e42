"""Answers that a job makes up: written to every descriptor it has, in every form that the runner could mistake.

`outcomes`: how such a job may end. Only data.
"""

from dataclasses import dataclass

VALUE = "forged"
#: In front of each: what the answer of a child is made of.
CODE = r"""
import os, struct, time

def report(claim=0, code=-1, about=0, files=0, pending=0, started=0, ended=0):
    return struct.pack("!BiBBBQQ", claim, code, about, files, pending, started, ended)

def message(*frames):
    return struct.pack("!I", len(frames)) + b"".join(struct.pack("!Q", len(f)) for f in frames) + b"".join(frames)

def answer(value=b"\xa6forged", fault=b"", **claims):
    return message(report(**claims), fault, value)

def everywhere(data):
    for fd in range(3, 51):
        try:
            os.write(fd, data)
        except OSError:
            pass

def close_all():
    os.closerange(3, 256)

"""


@dataclass(frozen=True, slots=True)
class Forgery:
    title: str
    code: str
    outcomes: frozenset[str]


def _f(title: str, code: str, outcomes: str) -> Forgery:
    return Forgery(title, code + "\n", frozenset(outcomes.split()))


FORGERIES = (
    _f("a whole answer, then it waits", "everywhere(answer())\ntime.sleep(9)", "ok"),
    _f("a whole answer, then it ends", "everywhere(answer())\nos._exit(9)", "ok"),
    _f("two answers", "everywhere(answer() + answer(b'\\x07'))\ntime.sleep(9)", "ok"),
    _f("an answer, then a flood", "everywhere(answer())\nwhile True: everywhere(b'x' * 65536)", "ok"),
    _f("stamps out of this world", "everywhere(answer(started=2**64 - 1, ended=1))\ntime.sleep(9)", "ok"),
    _f("files that are not there", "everywhere(answer(files=255))\ntime.sleep(9)", "ok error crash"),
    _f("an outcome that is not its to give", "everywhere(answer(claim=5))\ntime.sleep(9)", "crash"),
    _f("an outcome that is none", "everywhere(answer(claim=255))\nos._exit(0)", "crash"),
    _f("a refusal without findings", "everywhere(answer(claim=4, value=b''))\ntime.sleep(9)", "rejected"),
    _f("a refusal with garbage for findings", "everywhere(answer(claim=4, fault=b'\\xc1' * 99))\ntime.sleep(9)", "rejected"),
    _f("an error that is no error", "everywhere(answer(claim=1, fault=b'\\x93\\x01\\x02\\x03'))\ntime.sleep(9)", "error"),
    _f("a value that is garbage", "everywhere(answer(value=b'\\xc1\\xff' * 50))\ntime.sleep(9)", "error"),
    _f("a value 100,000 deep", "everywhere(answer(value=b'\\x91' * 100_000))\ntime.sleep(9)", "error"),
    _f("a list that claims 4 billion items", "everywhere(answer(value=b'\\xdd\\xff\\xff\\xff\\xff'))\ntime.sleep(9)", "error"),
    _f("frames that are empty", "everywhere(message(b'', b'', b''))\ntime.sleep(9)", "crash"),
    _f("one frame only", "everywhere(message(report()))\ntime.sleep(9)", "crash"),
    _f("a thousand empty frames", "everywhere(message(report(), b'', *[b''] * 1000))\ntime.sleep(9)", "ok error"),
    _f("as many frames as an answer has", "everywhere(message(report(), b'', *[b''] * 1021))\ntime.sleep(9)", "error"),
    _f("one frame more", "everywhere(message(report(), b'', *[b''] * 1022))\ntime.sleep(9)", "crash"),
    _f("no frames", "everywhere(struct.pack('!I', 0))\ntime.sleep(9)", "crash"),
    _f("4 billion frames", "everywhere(struct.pack('!I', 2**32 - 1))\ntime.sleep(9)", "crash"),
    _f("a frame of 16 exabytes", "everywhere(struct.pack('!IQQQ', 3, 22, 0, 2**64 - 1))\ntime.sleep(9)", "output"),
    _f("frames that are too large together", "everywhere(struct.pack('!I', 1000) + struct.pack('!Q', 2**25) * 1000)\ntime.sleep(9)", "output"),
    _f("half an answer, then it ends", "everywhere(answer()[:30])\nos._exit(0)", "crash"),
    _f("half an answer, then it waits", "everywhere(answer()[:30])\ntime.sleep(9)", "timeout"),
    _f("half an answer, then the true one", "everywhere(answer()[:30])\nresult = 'true'", "crash timeout error ok"),
    _f("noise", "everywhere(os.urandom(4096))\nresult = 'true'", "crash timeout output"),
    _f("noise without end", "while True: everywhere(os.urandom(65536))", "crash timeout output"),
    _f("every descriptor closed, then it ends", "close_all()\nresult = 'true'", "crash"),
    _f("every descriptor closed, then it waits", "close_all()\ntime.sleep(9)", "timeout"),
    _f("a byte at a time", "for b in answer():\n    everywhere(bytes([b])); time.sleep(0.005)\ntime.sleep(9)", "ok"),
    _f("the answer of a grandchild", "if os.fork() == 0:\n    time.sleep(0.2); everywhere(answer()); time.sleep(9)\ntime.sleep(9)", "ok"),
    _f("a grandchild that outlives the answer", "if os.fork() == 0:\n    os.setsid()\n    while True: everywhere(b'x')\neverywhere(answer())\nos._exit(0)", "ok crash"),
    _f("descriptors for the runner", "import array, socket\nfor fd in range(3, 51):\n    try:\n        with socket.socket(fileno=os.dup(fd)) as s:\n            for _ in range(50): s.sendmsg([b'x'], [(1, 1, array.array('i', [0, 1, 2] * 50))], 64)\n    except OSError: pass\ntime.sleep(9)", "crash timeout"),
    _f("bytes out of band", "import socket\nfor fd in range(3, 51):\n    try:\n        with socket.socket(fileno=os.dup(fd)) as s:\n            for _ in range(50): s.send(b'xyz', socket.MSG_OOB | 64)\n    except OSError: pass\ntime.sleep(9)", "crash timeout"),
    _f("standard streams that block no more", "import fcntl\nfor fd in range(51):\n    try: fcntl.fcntl(fd, 4, 0o4000); fcntl.fcntl(fd, 1031, 4096)\n    except OSError: pass\neverywhere(answer() * 99)\ntime.sleep(9)", "ok"),
    _f("it reads what the runner sends", "for fd in range(3, 51):\n    try: os.read(fd, 9)\n    except OSError: pass", "timeout"),
    _f("byte code in place of an answer", "everywhere(message(b'compiled', b'x' * 99))\ntime.sleep(9)", "crash"),
    _f("byte code, then the true answer", "everywhere(message(b'compiled', b''))\nresult = 'true'", "crash"),
    _f("a warm-up in front of an answer", "everywhere(struct.pack('!I', 0) + answer())\ntime.sleep(9)", "crash"),
    _f("an answer that is not the last, then it waits", "everywhere(answer(pending=1))\ntime.sleep(9)", "ok"),
    _f("an answer that is not the last, then it ends", "everywhere(answer(pending=1))\nos._exit(0)", "ok"),
    _f("an answer that is not the last, then it fails", "everywhere(answer(pending=1))\nos.abort()", "crash"),
    _f("two answers that are not the last", "everywhere(answer(pending=1) * 2)\ntime.sleep(9)", "crash"),
    _f("an answer that is not the last, and the last one fails", "everywhere(answer(pending=1) + answer(claim=1, value=b''))\ntime.sleep(9)", "error"),
    _f("an answer that is not the last, then half of another", "everywhere(answer(pending=1) + answer()[:30])\ntime.sleep(9)", "ok"),
    _f("an answer that is not the last, with files", "everywhere(message(report(pending=1, files=1), b'', b'a', b'1', b'\\xa6forged') + answer())\ntime.sleep(9)", "ok"),
    _f("a file below another file", "everywhere(message(report(files=2), b'', b'a', b'1', b'a/b', b'2', b'\\xa6forged'))\ntime.sleep(9)", "error"),
    _f("two files of one name", "everywhere(message(report(files=2), b'', b'a', b'1', b'a', b'2', b'\\xa6forged'))\ntime.sleep(9)", "crash"),
    _f("a file outside", "everywhere(message(report(files=1), b'', b'x/../../a', b'1', b'\\xa6forged'))\ntime.sleep(9)", "crash"),
    _f("a file whose name is no text", "everywhere(message(report(files=1), b'', b'\\xff', b'1', b'\\xa6forged'))\ntime.sleep(9)", "crash"),
    _f("files in the place of the value", "everywhere(message(report(files=2), b'', b'a', b'1', b'b'))\ntime.sleep(9)", "crash"),
    _f("an error of a million letters", "everywhere(answer(claim=1, value=b'', fault=b'\\x82\\xa4type\\xa1x\\xa7message\\xdb' + struct.pack('!I', 10**6) + b'x' * 10**6))\ntime.sleep(9)", "error"),
    _f("an error that is over the margin", "everywhere(answer(claim=1, value=b'', fault=bytes(40 << 20)))\ntime.sleep(9)", "output"),
    _f("an error whose fields come twice", "everywhere(answer(claim=1, value=b'', fault=b'\\x84' + b'\\xa4type\\xa1x\\xa7message\\xa1y' * 2))\ntime.sleep(9)", "error"),
    _f("an exit code of its own beside a value", "everywhere(answer(code=300))\ntime.sleep(9)", "ok"),
    _f("an error about nothing that is known", "everywhere(answer(claim=1, about=200))\ntime.sleep(9)", "crash"),
)  # fmt: skip
