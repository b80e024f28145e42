"""What a loop imports: Client, PoolExecutor and, for operators, AdminClient. No Docker SDK here.

for users       client.py (Client)    aio.py, arrival.py (AsyncClient)  executor.py, futures.py (PoolExecutor)  admin.py
                sandbox.py, strategy.py (SandboxExecutor); routing.py, fallback.py: where its programs run
                local.py (run_once)   in_job.py: names that exist in a job only
a job           options.py: what a user may give    job.py: to the frames of one Submit    checks.py: single fields
                pickling.py, installed.py, fences.py: its code    results.py: a Result and its output, as data
many jobs       batch.py: map, submit_many, results    cases.py: run_tests    chunks.py: many calls as one job
                window.py: a bounded number under way    retry.py: while the pool is busy
the connection  connection.py: the thread with the socket    pending.py: open requests    endpoint.py    waiting.py
values          decoder.py, decoder_process.py: decoding in a helper process    strategy_grader.py: runs in the pool
"""

from pool.client.admin import AdminClient
from pool.client.batch import Batch, BatchJob
from pool.client.cases import Case, CaseResult, TestReport
from pool.client.client import Client
from pool.client.executor import PoolExecutor
from pool.client.futures import PoolFuture
from pool.errors import BatchError, ExecutorClosedError, JobOutcomeError

__all__ = [
    "AdminClient",
    "Batch",
    "BatchError",
    "BatchJob",
    "Case",
    "CaseResult",
    "Client",
    "ExecutorClosedError",
    "JobOutcomeError",
    "PoolExecutor",
    "PoolFuture",
    "TestReport",
]
