"""What commands read beside a running agent, which is not disturbed."""
