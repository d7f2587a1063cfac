"""The probes. One probe is two files, NAME.bpf.c and NAME.py, and its name here."""

from otelbpf.probes import cgroup, dns_lookup, process, tcp_connection

PROBES = (cgroup.PROBE, dns_lookup.PROBE, process.PROBE, tcp_connection.PROBE)
