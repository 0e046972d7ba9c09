"""The sections of `scripts/benchmark.py`: each module here whose name has no leading underscore is one.

A section has
    a docstring, whose first paragraph is its help and whose rest is shown with its options;
    `add_options(parser)`, its own options;
    `measure(options, console) -> (settings, rows)`, what was held fixed and one flat dictionary a measurement;
    `table(rows)`, the rows as a rich table.
It imports torch and the package in functions, so that help is quick.
"""
