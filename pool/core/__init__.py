"""The core of a pool: events in, commands out. machine.py has the contract; docs/architecture.md lists the files."""
