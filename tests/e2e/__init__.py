"""The whole agent against real peers."""
