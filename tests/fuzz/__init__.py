"""Any bytes give a result or one type of error: the contracts of everything that reads foreign bytes.

    ./dev fuzz ──▶ __main__.py ──▶ engine.py, a process for each target ──▶ atheris ──▶ watch.py ──▶ one(data)
                                                                                         CPU, memory   the contract
    ./dev test ──▶ test_targets.py ──▶ hypothesis ─────────────────────────────────────▶ watch.py ──▶ one(data)

A target (`targets/`) is a function of bytes that raises when the contract is broken, the seeds that it starts from, and
how its inputs are bent by somebody who knows their grammar. Input bytes are all there is: no clock and no chance decide
what a target does with them, so a file is a reproducer.
"""
