"""The code that runs inside a worker: runner (PID 1), zygote, child.

    daemon ⇄ link.sock ⇄ runner ── socketpair ──▶ zygote ── fork ──▶ child (parked, then one job, then dead)
                            ▲                                          │
                            └──── channel, stdout, stderr, pidfd ◀─────┘   handed over by the zygote at the fork

It imports the standard library, zmq, the codecs and the leaf modules of `pool` that are copied into the image.
"""
