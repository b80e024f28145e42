"""The whole host in one call."""

from __future__ import annotations

from pathlib import Path

from pool.config.settings import Settings
from pool.doctor.engine import endpoint, read_engine, tls
from pool.doctor.facts import Host, Wanted
from pool.doctor.files import changelogs, entry
from pool.doctor.kernel import read_kernel
from pool.errors import EngineError


def gather(run_dir: Path) -> Host:
    """The facts about this host and a daemon's run directory; an Engine that does not answer is one of them."""
    docker, silence = None, ""
    try:
        docker = read_engine()
    except EngineError as error:
        silence = error.message
    where = endpoint()
    local = where.startswith("unix://")
    return Host(
        kernel=read_kernel(),
        docker=docker,
        silence=silence,
        endpoint=where,
        tls=not local and tls(),
        socket=entry(Path(where.removeprefix("unix://"))) if local else None,
        run_dir=entry(run_dir),
        admin_socket=entry(run_dir / "admin.sock"),
        # The packages of this host say nothing about an Engine elsewhere.
        changelogs=changelogs() if local else {},
    )


def wanted_by(settings: Settings) -> Wanted:
    """What a configuration asks of the host."""
    pools = settings.pools.values()
    return Wanted(
        runtimes=frozenset(pool.runtime for pool in pools if pool.runtime),
        profiles=frozenset(pool.apparmor for pool in pools if pool.apparmor),
        namespaces=any(pool.isolation != "plain" for pool in pools),
    )
