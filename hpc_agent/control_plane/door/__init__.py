"""The web UI's door: who comes in, with which role, and what of the webserver they may reach."""
