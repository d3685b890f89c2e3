"""What goes out to the control plane: one verdict per answer, one way of draining."""
