"""From run directories to a report: tables, tests, figures, and a page with an attention explorer.

It reads files and computes; nothing here needs torch, so that it starts at once.
"""
