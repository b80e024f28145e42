"""The two commands. `pool-admin` asks a running daemon and shows its answer; `pool-daemon` runs one.

pool-admin    admin.py (shared options, list of commands)
  commands    inspect.py (status workers jobs job poison)    operate.py (drain resume recycle resize cancel pardon)
              run.py, batch.py    doctor.py    report.py    advise.py    mine.py
              check.py (check, config check)    image.py (image build, unpack)
  answers     answer.py (ask, JSON, errors, exit status)     views.py (the daemon's answers as typed values)
  for people  tables.py, doctor_tables.py, cells.py: only these import rich, and only when a table is shown
pool-daemon   daemon.py
"""
