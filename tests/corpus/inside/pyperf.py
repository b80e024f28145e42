"""Stands in for pyperf, so that its programs run once and measure nothing.

`told` says for each benchmark that was run what its function gave, where that is no time.
"""

import argparse
import asyncio
import inspect
import subprocess
import sys
from time import perf_counter

__all__ = ["Runner", "perf_counter", "python_implementation", "told"]
told: list[list[str]] = []
_LOOPS = 1


class Runner:
    def __init__(self, add_cmdline_args=None, **_options):
        self.argparser = argparse.ArgumentParser()
        self.metadata = {}
        self.args = None

    def parse_args(self, arguments=None):
        self.args = self.argparser.parse_args(arguments)
        return self.args

    def bench_time_func(self, name, function, *arguments, **_options):
        elapsed = function(_LOOPS, *arguments)
        assert elapsed >= 0, f"{name} took {elapsed} s"
        _tell(name, None)

    def bench_func(self, name, function, *arguments, **_options):
        _tell(name, function(*arguments))

    def bench_async_func(self, name, function, *arguments, loop_factory=None, **_options):
        if loop_factory is None:
            _tell(name, asyncio.run(function(*arguments)))
            return
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            _tell(name, runner.run(function(*arguments)))

    def bench_command(self, name, command, **_options):
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        _tell(name, None)


def python_implementation():
    return sys.implementation.name


def _tell(name, value):
    plain = isinstance(value, (int, float, str, bytes, tuple, list, dict, type(None)))
    told.append([name, repr(value)[:1000] if plain and not inspect.iscoroutine(value) else type(value).__name__])
