"""The two commands: `pool-admin` asks a running daemon and renders its answer, `pool-daemon` is one.

pool-admin   admin.py (shared options, list of commands) -> look.py operate.py run.py image.py (parse, ask, show)
every answer answer.py (asking, JSON, errors, exit status); plain.py (a job's result as JSON); printable.py (safe text)
for people   view.py (the Snapshot with types, and what makes it degraded) -> render.py, cells.py (tables)
pool-daemon  daemon.py

Only render.py and cells.py import rich, and they are imported only to show something to a person.
"""
