"""One command a figure: each module measures one thing and writes it to benchmarks/results; docs/performance.md tells.

`repeated_lines` counts instead: how much of each script stands in another.
"""
