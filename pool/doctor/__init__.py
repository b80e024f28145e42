"""What is known of the host, and what to do about it; `pool-admin doctor` shows it.

kernel.py, engine.py, files.py ──gather.py──▶ Host (facts.py) ──findings.py──▶ [HostFinding]
   read the host, judge nothing               plain values       judge_*.py, advisories.py: judge, read nothing
"""

from __future__ import annotations

from pool.doctor.facts import Host, Wanted
from pool.doctor.finding import TITLES, HostFinding, Verdict
from pool.doctor.findings import examine
from pool.doctor.gather import gather, wanted_by

__all__ = ["TITLES", "Host", "HostFinding", "Verdict", "Wanted", "examine", "gather", "wanted_by"]
