"""The image itself: as deploy/Dockerfile says, without a container engine."""
