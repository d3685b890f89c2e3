"""Any command as a Slurm job, with Dagster Pipes through files on the shared file system."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias
from weakref import WeakKeyDictionary

import dagster as dg
from dagster._core.definitions.resource_annotation import TreatAsResourceParam

from dagster_hpc.checkpoint import Checkpoint
from dagster_hpc.command_job import Command
from dagster_hpc.invocation import Invocation
from dagster_hpc.jobs import JobName, Launcher, Tags
from dagster_hpc.launcher import launcher_of_run
from dagster_hpc.local import LocalLauncher
from dagster_hpc.mpi import parallel, refuse_components
from dagster_hpc.options import SlurmOptions
from dagster_hpc.scripts import SlurmScript
from dagster_hpc.stored import OpContext, Result
