"""The exact load generator: TCP and DNS traffic whose truth is counted by those who made it."""
