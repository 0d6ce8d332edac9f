"""Benchmarks: one program an area, `python -m tests.benchmarks.<area>`; all of them with `python -m tests.benchmarks`."""

from tfmusic import cli

cli.load_tensorflow()  # before any module here imports it with all its chatter
