"""A campaign of faults: clients submit jobs to a real daemon while processes and containers are killed at random.

    submitters ──submit, result──▶ daemon ──▶ workers ──▶ jobs ──name of their process──▶ witness
        │                            ▲          ▲
        │                            └─ faults ─┘
        └──▶ history (one file for each process) ──▶ checker

Run it with `./dev chaos --minutes 5 --seed 1`. docs/faults.md says what it has shown.
"""
