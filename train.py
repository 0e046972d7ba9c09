#!/usr/bin/env python
"""Trains an attention variant on a task: `python train.py attention=bahdanau task=translation`; `--help` lists all."""

from attnlab.cli import main

if __name__ == "__main__":
    main()
