"""The 3,002 CodeIO programs of reasoning-gym, each with three seeds.

A record has a program with `main_solution` and a generator of its inputs. Both run inside, with the seed as argument:
neither is code that anybody has vetted.
"""

import gzip
import json

from tests.corpus.case import Case
from tests.corpus.packages import carried

PART = "CodeIO"
SEEDS = (1, 2, 3)
_PROGRAM = """from random import Random
{code_sample}

{input_generator}

def corpus_entry(seed):
    return main_solution(**generate_inputs(Random(seed)))
"""


def load() -> list[Case]:
    path = carried("reasoning-gym", "reasoning_gym/data/codeio.jsonl.gz")
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        programs = [_PROGRAM.format_map(json.loads(line)) for line in lines]
    return [
        Case(name=f"codeio.{number:04}.{seed}", part=PART, code=code, entry="corpus_entry", args=(seed,), seed=seed)
        for number, code in enumerate(programs)
        for seed in SEEDS
    ]
