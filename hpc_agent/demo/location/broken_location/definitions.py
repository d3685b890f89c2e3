"""Fails to import, as code does whose environment lacks a package."""

raise ImportError("broken_location is broken on purpose: no module named 'climate_model'")
