"""What is run to see which system calls are used: programs of the kinds that jobs are, and jobs through the whole path.

A program that cannot run here (a library is missing) is left out and said so.
"""

LIBRARIES = ("numpy", "pandas", "scikit-learn", "pyzmq", "msgpack", "msgspec")

PROGRAMS = {
    "nothing": "pass",
    "numpy": """
import numpy as np
np.linalg.inv(np.random.default_rng(1).random((400, 400))); np.fft.fft(np.ones(4096))
array = np.memmap("m", dtype="f8", mode="w+", shape=(1000,)); array[:] = 1; array.flush()
np.save("a.npy", array); np.load("a.npy", mmap_mode="r").sum(); np.ones(5_000_000).sum()
""",
    "pandas": """
import pandas as pd
frame = pd.DataFrame({"x": range(100_000)})
frame.index = pd.date_range("2024", periods=100_000, tz="Europe/Berlin", freq="min")
frame.rolling(20).mean(); frame.groupby(frame.index.hour).sum()
frame.head(1000).to_csv("f.csv"); pd.read_csv("f.csv"); frame.head().to_json("f.json"); pd.read_json("f.json")
""",
    "scikit-learn": """
import numpy as np
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import cross_val_score
x = np.random.default_rng(1).random((200, 4)); y = x.sum(axis=1)
LinearRegression().fit(x, y); cross_val_score(RandomForestClassifier(20, n_jobs=2), x, y > 2, cv=3)
""",
    "threads": """
import concurrent.futures, queue, threading, time
with concurrent.futures.ThreadPoolExecutor(4) as threads: sum(threads.map(abs, range(1000)))
timer = threading.Timer(0.01, lambda: None); timer.start(); timer.join()
condition = threading.Condition()
with condition: condition.wait(0.01)
try: queue.Queue().get(timeout=0.01)
except queue.Empty: pass
""",
    "multiprocessing": """
import concurrent.futures, multiprocessing, multiprocessing.shared_memory
context = multiprocessing.get_context("fork")
with context.Pool(2) as pool: pool.map(abs, range(10))
queue = context.Queue(); child = context.Process(target=queue.put, args=(7,)); child.start(); queue.get(); child.join()
shared = multiprocessing.shared_memory.SharedMemory(create=True, size=4096); shared.close(); shared.unlink()
with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as both: list(both.map(abs, [-3]))
near, far = context.Pipe(); near.send(1); far.recv(); context.Event().wait(0.01); context.Semaphore().acquire()
""",
    "asyncio": """
import asyncio, signal, subprocess, sys
async def all_of_it():
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", "print(5)", stdout=subprocess.PIPE)
    server = await asyncio.start_unix_server(lambda reader, writer: writer.close(), "s")
    reader, writer = await asyncio.open_unix_connection("s"); await reader.read(); writer.close(); server.close()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, lambda: None)
    await process.communicate(); await asyncio.to_thread(len, "x"); await asyncio.sleep(0.01)
asyncio.run(all_of_it())
""",
    "subprocess": """
import os, subprocess, sys
subprocess.run([sys.executable, "-c", "print(6)"], capture_output=True, start_new_session=True)
late = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]); late.terminate(); late.wait()
os.waitpid(os.posix_spawn(sys.executable, [sys.executable, "-c", "pass"], {}), 0)
""",
    "sqlite": """
import sqlite3
base = sqlite3.connect("d.sqlite"); base.execute("pragma journal_mode=wal"); base.execute("create table t(x)")
base.executemany("insert into t values (?)", [(n,) for n in range(1000)]); base.commit()
base.execute("select sum(x) from t").fetchone(); base.execute("vacuum"); base.close()
""",
    "files": """
import fcntl, mmap, os, pathlib, shutil, tempfile
place = pathlib.Path("f"); place.write_text("x" * 99999); place.chmod(0o600); place.read_bytes()
list(pathlib.Path().glob("**/*"))
shutil.copy2("f", "g"); shutil.move("g", "h"); os.makedirs("t/u/v"); shutil.copytree("t", "j"); shutil.rmtree("j")
shutil.make_archive("z", "zip", ".", "h"); shutil.make_archive("z", "gztar", ".", "h"); os.utime("h", (1, 1))
with tempfile.NamedTemporaryFile() as file: file.write(b"x"); file.flush(); os.fsync(file.fileno())
with open("h", "r+b") as file: fcntl.flock(file, fcntl.LOCK_EX); fcntl.lockf(file, fcntl.LOCK_EX); file.truncate(9)
with open("f", "r+b") as file, mmap.mmap(file.fileno(), 0) as mapped: mapped[:1] = b"y"; mapped.flush()
os.listxattr("."); pathlib.Path("l").symlink_to("h"); os.link("h", "k"); os.statvfs(".")
os.readlink("l"); os.access("h", 4)
""",
    "signals and timers": """
import os, select, signal, time
signal.signal(signal.SIGALRM, lambda *_: None); signal.setitimer(signal.ITIMER_REAL, 0.01); signal.pause()
signal.alarm(0); signal.sigtimedwait([signal.SIGUSR1], 0.01); fd = os.pidfd_open(os.getpid())
signal.pidfd_send_signal(fd, 0); select.select([fd], [], [], 0)
poll = select.epoll(); poll.register(fd); poll.poll(0.01)
time.sleep(0.001); os.times(); time.process_time()
""",
}

#: Code of jobs. What the job's own filter refuses is seen all the same: a tracer hears of a call before a filter does.
JOBS = {
    "a value": "result = 42",
    "numpy and pandas": """
import numpy as np, pandas as pd
result = pd.DataFrame({"x": np.random.random(999)}).rolling(9).mean()
""",
    "output": "for n in range(2000): print('x' * 100)",
    "files": "open('a', 'w').write('x' * 9999)\nresult = open('a').read()",
    "threads": """
import threading
for n in range(4):
    thread = threading.Thread(target=sum, args=([1],)); thread.start(); thread.join()
""",
    "processes": "import os\nif not os.fork(): os._exit(0)\nos.wait()",
    "multiprocessing": """
import multiprocessing
with multiprocessing.get_context("fork").Pool(2) as pool: result = pool.map(abs, [-1])
""",
    "sqlite": "import sqlite3\nb = sqlite3.connect('d')\nb.execute('create table t(x)')\nb.commit()",
    "an error": "1 / 0",
    "too much memory": "result = len(bytearray(1 << 40))",
    "a stray": "import os, time\nif not os.fork(): os.setsid(); time.sleep(60)",
    "crash": "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)",
    "after all that": "result = 1",
}
