"""Code that is asked, and kills or keeps the code server that it lives in."""

import ctypes
import os
import time

import dagster as dg


@dg.op
def nothing() -> None:
    """Do nothing."""


@dg.job
def target() -> None:
    """What sensors would launch."""
    nothing()


@dg.sensor(job=target)
def segfaults() -> dg.SkipReason:
    """Die in C code."""
    ctypes.string_at(0)
    return dg.SkipReason("never said")


@dg.sensor(job=target)
def exits() -> dg.SkipReason:
    """Leave at once."""
    print("about to leave", flush=True)
    os._exit(7)


@dg.sensor(job=target)
def hangs() -> dg.SkipReason:
    """Take longer than anybody waits."""
    time.sleep(600)
    return dg.SkipReason("too late")


@dg.sensor(job=target)
def answers() -> dg.SkipReason:
    """Do as it should."""
    return dg.SkipReason("as it should")


defs = dg.Definitions(jobs=[target], sensors=[segfaults, exits, hangs, answers])
