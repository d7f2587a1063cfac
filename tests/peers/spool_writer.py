"""An exporter with a spool in a process of its own, for tests that kill it.

Run: python -m tests.peers.spool_writer ENDPOINT DIRECTORY FIRST
Exports one numbered record after another, from FIRST on, and prints each number once it is on disk or acknowledged.
"""

from __future__ import annotations

import sys
import time

from otelbpf.config import OtlpHttp, Retry, Spool
from otelbpf.export import sender
from tests.peers.otlp import log_request

SOON = Retry(initial_interval=0.01, max_interval=0.05, max_elapsed_time=0)


def main() -> None:
    endpoint, directory, first = sys.argv[1:]
    settings = OtlpHttp(endpoint=endpoint, retry_on_failure=SOON, spool=Spool(directory=directory, max_age=1e9))
    number = int(first)
    told = number
    with sender("peer", settings) as exporter:
        while True:
            exporter.export(log_request(1, number, padding=3000))
            number += 1
            ledger = exporter.ledger()["logs"]
            # Those in memory only are the newest.
            for safe in range(told, number - ledger.queued):
                print(safe, flush=True)
            told = max(told, number - ledger.queued)
            time.sleep(0.001)


if __name__ == "__main__":
    main()
