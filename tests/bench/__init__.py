"""Benchmarks: figures with the command that made them; nothing here is asserted."""
