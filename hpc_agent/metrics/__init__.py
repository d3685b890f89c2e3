"""What operators watch: which metrics there are, how they are counted, and where they are read."""
