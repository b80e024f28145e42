"""The `local` engine: the runner as a locked-down process of this host, without Docker and without a daemon.

    LocalWorker        shell.py, as a separate program            runner and its children
    ┌─────────┐ start ┌───────────────────────────────┐ exec ┌──────────────────────────────────┐
    │ caller  │──────▶│ cgroup ▶ namespaces ▶ root of │─────▶│ as in a container: one child for │
    │         │       │ its own ▶ rights ▶ filter     │      │ each job, locked down further    │
    └─────────┘       └───────────────────────────────┘      └──────────────────────────────────┘
         ▲                      link.sock: Run, Done                          │
         └────────────────────────────────────────────────────────────────────┘

For a container the engine sets up the outer layer; here shell.py does. The inner layer is the runner's and is the same
in both. If the host refuses a part, NoLockdownError says what to do and nothing is run. Only the cgroup may be missing,
because only root may make one.

    layout.py      what a worker finds below /, as plain values        profile.py    seccomp/worker.json as a filter
    shell.py       sets that up and becomes the runner                 cgroups.py    hard limits on the whole worker
    refusals.py    what to do about a part that the host refuses       worker.py     starts it and talks to the runner

shell.py, profile.py and cgroups.py run in an interpreter without site-packages, so they use the standard library and
the runner's own modules only. Nothing is imported here for that reason.
"""
