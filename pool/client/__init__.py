"""What a loop imports: Client, PoolExecutor and, for operators, AdminClient. No Docker SDK here."""

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
