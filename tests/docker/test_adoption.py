"""A container with a running job outlives its daemon, on each engine."""

from tests.support.daemons import DaemonProcess, pool_of

POOL = pool_of(1, recycle={"max_jobs": 1000})
CODE = "import time\nprint('it runs', flush=True)\ntime.sleep(5)\nresult = 'it went on'"


def test_a_running_job_goes_on_in_its_container_and_its_result_arrives(each_engine, home):
    first = DaemonProcess({"default": POOL}, engine=each_engine, home=home, durability="crash").start()
    with first.client(timeout=120) as client:
        job_id = client.submit(CODE)
        first.until(lambda: first.workers(state="leased"))
        (worker,) = first.workers()
        first.kill()
        with DaemonProcess({"default": POOL}, engine=each_engine, home=home, durability="crash") as second:
            result = client.result(job_id)
            assert (result.outcome, result.container, result.attempt) == ("ok", worker["container"], 1), result
            assert (result.value, result.stdout) == ("it went on", "it runs\n")
            second.until(lambda: second.workers(state="idle"))
            assert client.run("result = 1").container == worker["container"], second.words()
            second.until(lambda: second.workers(state="idle"))
            assert not second.pool()["recycles"], "the worker was found as it was before"
