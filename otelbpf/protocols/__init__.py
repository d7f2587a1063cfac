"""What travels inside connections: bytes → a value or ProtocolError; no I/O, no clock, no state."""
