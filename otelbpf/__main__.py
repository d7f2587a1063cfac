"""`python -m otelbpf` is `otelbpf`."""

from otelbpf.cli import main

main()
