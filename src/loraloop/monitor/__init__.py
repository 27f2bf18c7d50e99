"""What the server does, as Prometheus' metrics."""
