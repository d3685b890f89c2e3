"""A classifier whose training goes on where it was, whatever ended its job."""
