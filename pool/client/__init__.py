"""What a loop imports: Client, PoolExecutor and, for operators, AdminClient. No Docker SDK here."""

from pool.client.admin import AdminClient
from pool.client.batch import Batch, BatchError, BatchJob
from pool.client.client import Client
from pool.client.executor import ExecutorClosedError, JobOutcomeError, PoolExecutor, PoolFuture

__all__ = [
    "AdminClient",
    "Batch",
    "BatchError",
    "BatchJob",
    "Client",
    "ExecutorClosedError",
    "JobOutcomeError",
    "PoolExecutor",
    "PoolFuture",
]
