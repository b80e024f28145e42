"""The `local` engine: the runner as a locked-down process of this host, without Docker and without a daemon.

    LocalWorker        shell.py, as a program of its own          runner and its children
    ┌─────────┐ start ┌───────────────────────────────┐ exec ┌──────────────────────────────────┐
    │ caller  │──────▶│ cgroup ▶ namespaces ▶ root of │─────▶│ as in a container: one child for │
    │         │       │ its own ▶ rights ▶ filter     │      │ each job, locked down further    │
    └─────────┘       └───────────────────────────────┘      └──────────────────────────────────┘
         ▲                      link.sock: Run, Done                          │
         └────────────────────────────────────────────────────────────────────┘

A container's engine sets up the outer layer of a worker; here shell.py does. The inner layer is the runner's and the
same in both. A part that the host refuses is a NoLockdownError with the remedy, and nothing is run: there is no way to
run code with a part of the lockdown missing, except for the cgroup, which only root may make.

    layout.py      what a worker finds below /, as plain values        profile.py    seccomp/worker.json as a filter
    shell.py       sets it up and becomes the runner                   cgroups.py    hard limits on the whole worker
    refusals.py    what to do about a part that the host refuses       worker.py     starts it and talks to the runner

shell.py, profile.py and cgroups.py run in an interpreter without site-packages, so they use the standard library and
the runner's own modules only. Nothing is imported here for that reason.
"""
