"""The outer profile in force: needed calls work, and others are refused by number.

The calls are in syscalls.py. tests/hostile/test_c_syscalls.py makes them on the host, where they reach the kernel.
"""

import json
import platform

import pytest

from pool.engines.docker import DockerEngine
from tests.hostile import calls

from .conftest import OWNER, make_spec
from .syscalls import REFUSED, REFUSED_ONLY_INSIDE

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="the numbers are those of x86-64")

X32 = {
    f"x32 {name}": ("", 0x40000000 | number) for name, number in {"getpid": 39, "execve": 520, "ptrace": 521}.items()
}
CALLS = f"""{calls.PROGRAM}{calls.PAGE}
import json
foreign = main({X32!r}) | {{"int 0x80": in_fork(lambda: by_int_80(20), lambda: None)}}
print(json.dumps({{"refused": main({REFUSED | REFUSED_ONLY_INSIDE!r}), "foreign": foreign}}))
"""
#: Newer than the list, or listed so: they answer ENOSYS, and libraries use the older call.
NOT_THERE = {"clone3", "statmount", "listmount", "mseal", "open_tree_attr", "not_yet_there"}


def ident(name):
    return f"{(REFUSED | REFUSED_ONLY_INSIDE)[name][0]}-{name}"


@pytest.fixture(scope="module")
def inside(sdk, stand_in):
    engine = DockerEngine()
    try:
        container = engine.launch(make_spec(CALLS, image=stand_in))
        status = sdk.wait(container.id, timeout=120)["StatusCode"]
        output = sdk.logs(container.id)
        assert status == 0, output.decode()
        yield json.loads(output)
    finally:
        for found in engine.find(owner=OWNER):
            found.container.kill()
        engine.close()


@pytest.mark.parametrize("name", REFUSED | REFUSED_ONLY_INSIDE, ids=ident)
def test_refused(inside, name):
    assert inside["refused"][name] == ("ENOSYS" if name in NOT_THERE else "EPERM")


@pytest.mark.parametrize("name", ["int 0x80", *X32])
def test_a_call_by_another_table_ends_the_process(inside, name):
    assert inside["foreign"][name] == "SIGSYS"


# ---- what must work ------------------------------------------------------------------------------------------------

WORK = {
    "numpy": """
import numpy as np
np.linalg.inv(np.random.default_rng(1).random((300, 300))); np.fft.fft(np.ones(4096))
array = np.memmap("/tmp/m", dtype="f8", mode="w+", shape=(1000,)); array[:] = 1; array.flush()
np.save("/tmp/a.npy", array); assert np.load("/tmp/a.npy", mmap_mode="r").sum() == 1000
""",
    "pandas": """
import pandas as pd
frame = pd.DataFrame({"x": range(1000)}, index=pd.date_range("2024", periods=1000, tz="Europe/Berlin"))
assert frame.rolling(20).mean().x.iloc[-1] == 989.5
frame.to_csv("/tmp/f.csv"); assert len(pd.read_csv("/tmp/f.csv")) == 1000
assert frame.groupby(frame.index.hour).sum().x.sum() == sum(range(1000))
""",
    "threads": """
import concurrent.futures, os, threading
with concurrent.futures.ThreadPoolExecutor(4) as threads: assert sum(threads.map(abs, range(-5, 0))) == 15
assert threading.Barrier(1).wait() == 0
timer = threading.Timer(0.01, lambda: None); timer.start(); timer.join()
""",
    "multiprocessing": """
import concurrent.futures, multiprocessing, multiprocessing.shared_memory
context = multiprocessing.get_context("fork")
with context.Pool(2) as pool: assert pool.map(abs, [-1, -2]) == [1, 2]
queue = context.Queue(); child = context.Process(target=queue.put, args=(7,)); child.start()
assert queue.get() == 7; child.join()
shared = multiprocessing.shared_memory.SharedMemory(create=True, size=4096); shared.close(); shared.unlink()
lock = context.Lock(); event = context.Event(); event.set(); assert event.wait(1)
with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as both: assert list(both.map(abs, [-3])) == [3]
""",
    "asyncio": """
import asyncio, os, subprocess
async def all_of_it():
    process = await asyncio.create_subprocess_exec("/usr/bin/python3", "-c", "print(5)", stdout=subprocess.PIPE)
    server = await asyncio.start_unix_server(lambda reader, writer: writer.close(), "/tmp/s")
    reader, writer = await asyncio.open_unix_connection("/tmp/s"); await reader.read(); writer.close(); server.close()
    return (await process.communicate())[0], await asyncio.to_thread(os.getpid), await asyncio.sleep(0.01, 3)
assert asyncio.run(all_of_it()) == (b"5\\n", os.getpid(), 3)
""",
    "subprocess": """
import subprocess
assert subprocess.run(["/usr/bin/python3", "-c", "print(6)"], capture_output=True).stdout == b"6\\n"
late = subprocess.Popen(["/usr/bin/python3", "-c", "import time; time.sleep(60)"]); late.terminate(); late.wait()
""",
    "sqlite": """
import sqlite3
base = sqlite3.connect("/tmp/d.sqlite"); base.execute("pragma journal_mode=wal"); base.execute("create table t(x)")
base.executemany("insert into t values (?)", [(n,) for n in range(100)]); base.commit()
assert base.execute("select sum(x) from t").fetchone() == (4950,); base.execute("vacuum"); base.close()
""",
    "files": """
import fcntl, mmap, os, pathlib, shutil, tempfile
pathlib.Path("/tmp/f").write_text("x" * 9999)
shutil.copy2("/tmp/f", "/tmp/g"); shutil.move("/tmp/g", "/tmp/h"); shutil.copytree("/opt/pool/pool", "/tmp/j")
shutil.rmtree("/tmp/j"); shutil.make_archive("/tmp/z", "zip", "/tmp", "h"); os.utime("/tmp/h", (1, 1))
with tempfile.NamedTemporaryFile() as file: file.write(b"x"); file.flush(); os.fsync(file.fileno())
with open("/tmp/h", "r+b") as file: fcntl.flock(file, fcntl.LOCK_EX); fcntl.lockf(file, fcntl.LOCK_EX); file.truncate(9)
with open("/tmp/f", "r+b") as file, mmap.mmap(file.fileno(), 0) as mapped: mapped[:1] = b"y"; mapped.flush()
os.listxattr("/tmp"); pathlib.Path("/tmp/l").symlink_to("/tmp/h"); os.link("/tmp/h", "/tmp/k"); os.statvfs("/tmp")
""",
    "signals and timers": """
import os, select, signal, time
heard = []; signal.signal(signal.SIGALRM, lambda *_: heard.append(1)); signal.setitimer(signal.ITIMER_REAL, 0.01)
signal.pause(); assert heard == [1]; assert signal.sigtimedwait([signal.SIGUSR1], 0.01) is None
fd = os.pidfd_open(os.getpid()); signal.pidfd_send_signal(fd, 0); select.select([fd], [], [], 0)
poll = select.epoll(); poll.register(fd); poll.poll(0.01); time.sleep(0.001)
""",
    "scikit-learn": """
import numpy as np
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import cross_val_score
x = np.random.default_rng(1).random((200, 4)); y = x.sum(axis=1)
assert LinearRegression().fit(x, y).score(x, y) > 0.99
assert cross_val_score(RandomForestClassifier(20, n_jobs=2), x, y > 2, cv=3).mean() > 0.7
""",
    "zeromq": """
import zmq
with zmq.Context() as context, context.socket(zmq.PULL) as pull, context.socket(zmq.PUSH) as push:
    pull.bind("ipc:///tmp/z"); push.connect("ipc:///tmp/z"); push.send(b"x"); assert pull.recv() == b"x"
""",
}


@pytest.mark.parametrize("name", WORK)
def test_it_works_under_the_profile(engine, sdk, spec, name, request):
    # The lines of WORK are this test's: a call that is missing from the profile names itself in the traceback.
    image = {"image": request.getfixturevalue("learning_stand_in")} if name == "scikit-learn" else {}
    container = engine.launch(spec(WORK[name] + "print('all of it works')\n", memory_bytes=512 << 20, **image))
    status = sdk.wait(container.id, timeout=120)["StatusCode"]
    output = sdk.logs(container.id).decode()
    assert (status, output.splitlines()[-1:]) == (0, ["all of it works"]), output
