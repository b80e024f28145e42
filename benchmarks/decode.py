"""What `Client(decode="process")` costs: values decoded in this process and in the helper, medians.

`python benchmarks/decode.py` needs no daemon: the frames are those that a job would send.
"""

import statistics
import time
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from pool import values
from pool.client.decoder import ProcessDecoder

REPEATS = 15
VALUES: dict[str, object] = {
    "an int": 42,
    "10,000 dicts": [{"n": n, "x": n / 7} for n in range(10_000)],
    "array, 16 MB": np.ones(2_000_000),
    "frame, 100,000 rows": pd.DataFrame(
        {"x": np.arange(100_000.0), "at": pd.date_range("2026-01-01", periods=100_000, freq="s", tz="UTC")}
    ),
}


def median_ms(decode: Callable[[Sequence[bytearray]], object], value: object) -> float:
    encoded = [bytearray(each) for each in values.encode(value, max_bytes=1 << 30)]
    times = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        decode(encoded)
        times.append(time.perf_counter() - started)
    return 1000 * statistics.median(times)


def main() -> None:
    decoder = ProcessDecoder()
    started = time.perf_counter()
    decoder.decode([bytearray(each) for each in values.encode(0, max_bytes=99)])
    print(f"start of the helper, once: {time.perf_counter() - started:.1f} s")
    print(f"{'value':<22}{'inline':>12}{'process':>12}{'more':>12}")
    for name, value in VALUES.items():
        inline, process = median_ms(values.decode, value), median_ms(decoder.decode, value)
        print(f"{name:<22}{inline:>9.2f} ms{process:>9.2f} ms{process - inline:>9.2f} ms")
    decoder.close()


if __name__ == "__main__":
    main()
