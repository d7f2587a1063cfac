"""What keeps the agent within its own limits, and notices when it does not work any more."""
