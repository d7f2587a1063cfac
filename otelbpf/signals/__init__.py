"""What leaves: the names, and the engines that turn batches into OTLP log records and metric points."""
