"""What comes from outside: how many connections, for how long, and what is understood of whom.

Relay and gateway listen through ``listener.Listener``. A connection is a *stranger* until a valid
token has come over it. Strangers are few, each has seconds, and no body of theirs is read. What the
others send is checked before use: sizes, depth and names.
"""
