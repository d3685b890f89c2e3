"""What became of one request, piece by piece: spans for OpenTelemetry, of gateway and agent."""
