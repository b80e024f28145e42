"""Does: the loop, the sockets, the engine's threads, the directories. What to do is decided in `pool.core`.

daemon.py     the one loop; owns everything below
run_directories.py  run and state directory, locks, identity of the owner
zmtp/         the sockets: submit.sock, admin.sock, one link.sock for each worker, and the loop's wait
desk.py       what clients say, and their answers; intake.py: a Submit is valid, or refused with a reason
ledger.py     what was accepted, who waits for it, and the results while they are kept
keeper.py     one pool: feeds its PoolState with events and has the commands carried out
lifecycle.py  a worker's start and its end; attempts.py: a job with its worker, from the lease to the result
berth.py      the facts about a worker and its pool that no decision needs; boot.py: a worker's handshake
worker_spec.py  from a template to each worker's spec; answers.py: the Result of a job
engine_executor.py  engine calls and other slow work in a few threads
datasets.py   copies of data sets, the thread that watches the files, and the editions of a pool
admin.py      what pool-admin may ask; snapshot.py and metrics.py: what it is told
systemd.py    logging and the service manager
"""
