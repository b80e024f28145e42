"""The jobs of a campaign: what each does, and how it may end when no fault strikes it."""

import hashlib
from dataclasses import dataclass
from random import Random

from pool.model import Limits, Outcome

#: The name of a process may have 15 bytes.
NONCE_LENGTH = 15


def nonce_of(job_id: str) -> str:
    """What the job calls its process, and returns: different for each job. `job_id`: "CAMPAIGN.NAME"."""
    mark = mark_of(job_id.partition(".")[0])
    return mark + hashlib.sha256(job_id.encode()).hexdigest()[: NONCE_LENGTH - len(mark)]


def mark_of(campaign: str) -> str:
    """The prefix of the nonces of a campaign, which no other campaign on this host has."""
    return "w" + hashlib.sha256(campaign.encode()).hexdigest()[:5]


PLENTY = Limits(wall_s=20)


@dataclass(frozen=True, slots=True)
class Program:
    kind: str
    body: str
    outcome: Outcome  #: without a fault
    weight: int
    limits: Limits = PLENTY

    def code(self, job_id: str) -> str:
        """Source text. It first renames its process, which is seen from outside, so executions can be counted."""
        nonce = nonce_of(job_id)
        return f"import ctypes\nctypes.CDLL(None).prctl(15, b'{nonce}', 0, 0, 0)\nnonce = '{nonce}'\n{self.body}"


PROGRAMS = (
    Program("short", "result = nonce", Outcome.OK, 60),
    Program(
        "numbers", "import numpy\nresult = nonce if numpy.arange(10_000).sum() == 49_995_000 else None", Outcome.OK, 10
    ),
    Program("long", "import time\ntime.sleep(0.7)\nresult = nonce", Outcome.OK, 6),
    Program("printing", "for n in range(3000): print(n)\nresult = nonce", Outcome.OK, 6),
    Program("raising", "raise KeyError(nonce)", Outcome.ERROR, 6),
    Program("crashing", "import os\nos.abort()", Outcome.CRASH, 4),
    Program("endless", "while True: pass", Outcome.TIMEOUT, 2, Limits(wall_s=0.3)),
    Program("greedy", "x = bytearray(4 << 30)\nresult = nonce", Outcome.MEMORY, 2, Limits(wall_s=20, memory="64m")),
    Program(
        "forking",
        "import os, time\n"
        "for n in range(5):\n"
        "    if os.fork() == 0:\n"
        "        os.setsid()\n"
        "        time.sleep(60)\n"
        "result = nonce",
        Outcome.OK,
        4,
    ),
)
BY_KIND = {each.kind: each for each in PROGRAMS}


def choose(rng: Random) -> Program:
    return rng.choices(PROGRAMS, [each.weight for each in PROGRAMS])[0]
