"""What our agent sends, compared with what the stock agent sends for the same work."""
