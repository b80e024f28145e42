"""A job that tries to send messages as its worker: E1. Runners that were taken over: test_e_worker_protocol.py."""

import socket

import pytest

pytestmark = pytest.mark.docker

CONNECT = """
import os, socket
def main(path):
    told = [os.path.exists(path)]
    try:
        with socket.socket(socket.AF_UNIX) as link:
            link.connect(path)
            told.append("connected")
    except OSError as error:
        told.append(type(error).__name__)
    return told
"""


def test_e1_a_job_cannot_connect_to_the_socket_of_its_worker(attack, outside, record, tmp_path):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "link.sock"))
        listener.listen()
        assert outside(CONNECT, str(tmp_path / "link.sock")).value == "[True, 'connected']"
    assert attack(CONNECT, "/run/pool/link.sock").value == [False, "PermissionError"]
    record("E1", "a job connects to its worker's link", "ERR", stopped_by=["job filter", "namespaces"],
           seen="no such path, and no socket", outside="connected")  # fmt: skip
