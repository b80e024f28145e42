"""pool-daemon, where a worker has a minute and not two seconds to end a job that is over its limit.

A job that takes all processors of its worker delays the worker's answer on a busy machine. Then the daemon ends the
worker, rightly, and a test that looks at what the job has left finds another one.
"""

import functools

from pool.cli.daemon import main
from pool.daemon import worker_spec

GRACE_S = 60.0

if __name__ == "__main__":
    worker_spec.PoolPolicy = functools.partial(worker_spec.PoolPolicy, kill_grace_s=GRACE_S)
    main()
