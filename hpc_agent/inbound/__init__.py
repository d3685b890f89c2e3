"""Connections from outside: how many, for how long, and what is read of whom.

Relay and gateway listen through ``listener.Listener``. A connection is a *stranger* until a valid
token has come over it. Strangers are few, each has seconds, and no body of theirs is read.
"""
