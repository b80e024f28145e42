"""Kernel, namespaces and the way out of the container: class C of the catalogue."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.docker


def test_c24_a_job_reaches_no_network(attack, outside, record):
    code = (
        "import socket\n"
        "def main():\n"
        "    with socket.socket() as sock:\n"
        "        return sock.connect_ex(('127.0.0.1', 9))\n"
    )
    assert outside(code).value == "111"  # refused by a port where nobody listens: there is a network
    result = attack(code)
    assert result.error.type == "PermissionError", result
    record("C24", "connect to the host or the network", "ERR", stopped_by=["job filter", "namespaces", "container", "seccomp"],
           seen=result.error.message, outside="connection refused by the port")  # fmt: skip
