"""What is measured of a runner that stands: each returns rows."""
