"""The heat equation on a square plate, solved by an MPI program on several nodes."""
