"""What the sandbox costs a loop, measured here and now, and whether to enable it: `pool-admin report`.

arms.py      one backtest: in this process behind the screen, in a container started for it, in the warm pool
checks.py    whether the sandbox does what it is for
measure.py   runs the arms in turns, and k backtests at a time
decision.py  from samples to figures, and the rule
document.py  the report as Markdown;  plots.py: its pictures
"""
