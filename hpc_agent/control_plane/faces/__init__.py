"""Faces: to webserver and daemon, the gateway looks like one ordinary code server per location."""
