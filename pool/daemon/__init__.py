"""Carries out what `pool.core` decides: the loop, the sockets, the engine's threads, the directories.

daemon.py            the loop; creates and owns everything below
run_directories.py   run and state directory, locks, identity of the owner
zmtp/                the sockets: submit.sock, admin.sock, one link.sock for each worker, and the loop's wait
submit_service.py    answers clients: submit, watch, cancel, ping
admission.py         checks a Submit and fills in its limits, or refuses it with a reason
job.py               one accepted job; job_store.py: all of them, and the results while they are kept
controller.py        one pool: events go into its PoolState, commands are carried out
job_carrier.py       the way of a job through its pool: written, then sent; worker_handle.py: the record of a worker
job_body.py          the large arguments of a job, as a file for its worker
adoption.py          workers that outlive the daemon; kept_workers.py: the notes of them; grading.py: the grade of a job
sessions.py          clients that vanish, and what becomes of their jobs
journal.py           what a journal does; journal_writer.py: its thread; journal_file.py, journal_bodies.py: its files
journal_entries.py   what is in them
recovery.py          the jobs of earlier daemons
worker_protocol.py   what a worker may send in each phase, and what follows
self_tests.py        the tests that a worker must pass before its first job; probe_inside.py: the lockdown probe
output.py            the output of running jobs, for clients that read it early
worker_spec.py       from a template to each worker's spec
engine_choice.py     which engine each pool has
engine_executor.py   engine calls and other slow work in a few threads
datasets.py          copies of data sets, the thread that watches the files, and the editions of a pool
admin.py             the calls of pool-admin; status.py and metrics.py: the status
systemd.py           logging and the service manager
"""
