"""Does: the loop, the sockets, the engine's threads, the directories. What to do is decided in `pool.core`.

daemon.py     the one loop; owns everything below
premises.py   run and state directory, locks, identity of the owner
transport.py  submit.sock, admin.sock and the wake-up; links.py: one link.sock for each worker
desk.py       what clients say, and their answers; intake.py: a Submit is valid, or refused with a reason
ledger.py     what was accepted, who waits for it, and the results while they are kept
keeper.py     one pool: feeds its PoolState with events and has the commands carried out
lifecycle.py  a worker's start and its end; attempts.py: a job with its worker, from the lease to the result
berth.py      the facts about a worker and its pool that no decision needs; boot.py: a worker's handshake
blueprint.py  from a template to each worker's spec; answers.py: the Result of a job
crew.py       engine calls in a few threads
admin.py      what pool-admin may ask; snapshot.py and metrics.py: what it is told
service.py    logging and the service manager
"""
