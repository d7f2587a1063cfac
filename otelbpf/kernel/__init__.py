"""The only package that knows bpf(2), tracefs, capabilities and errno; everything after it sees bytes and arrays."""
