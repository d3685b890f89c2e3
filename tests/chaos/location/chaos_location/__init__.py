"""The code location of the fault rig: one job of one op that writes down that it was executed."""
