"""Measures the cost of the sandbox for a loop on this machine, and decides whether to enable it: `pool-admin report`.

arms.py      one backtest: in this process behind the screen, in a container started for it, in the warm pool
checks.py    small programs, and the outcome that each must have
measure.py   runs the arms in turns, and k backtests at a time
decision.py  from samples to figures, and the rule
document.py  the report as Markdown;  plots.py: its pictures
"""
