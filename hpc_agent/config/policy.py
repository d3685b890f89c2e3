"""What users may ask Slurm for: the site's policy."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from hpc_agent.config.section import Options, Section

Count = Annotated[int, Field(ge=0)]


class Bounds(Section):
    """Amounts of one job, all nodes together; ``time`` and ``mem`` as sbatch writes them."""

    time: Annotated[str, Field(pattern=r"^([0-9]+-)?[0-9]+(:[0-9]{1,2}){0,2}$")] | Count | None = (
        None
    )
    nodes: Count | None = None
    cpus: Count | None = None
    mem: Annotated[str, Field(pattern=r"^[0-9]+[KMGT]?$")] | Count | None = None
    gpus: Count | None = None

    def over(self, general: Bounds) -> Bounds:
        """Return these bounds, and the general ones where there are none."""
        return general.model_copy(update=self.model_dump(exclude_none=True))


class Rules(Section):
    """Rules; a list that is not given is no rule.

    ``allow`` and ``forbid`` are about the options that users set, ``extra`` names those of the
    rarer ones that they may; ``images`` are patterns (fnmatch) of what the tag
    ``dagster-hpc/image`` may name; all else is about what a job asks for in the end.
    """

    allow: list[str] | None = None
    forbid: list[str] = []
    extra: list[str] = []
    partitions: list[str] | None = None
    accounts: list[str] | None = None
    qos: list[str] | None = None
    images: list[str] | None = None
    max: Bounds = Bounds()
    min: Bounds = Bounds()
    force: Options = {}

    def over(self, general: Rules) -> Rules:
        """Return these rules over more general ones: bounds and forced values one by one."""
        own = {
            name: getattr(self, name) for name in self.model_fields_set & set(Rules.model_fields)
        }
        merged = {
            "max": self.max.over(general.max),
            "min": self.min.over(general.min),
            "force": {**general.force, **self.force},
        }
        inherited = {name: getattr(general, name) for name in Rules.model_fields}
        return Rules.model_construct(**(inherited | own | merged))


class Policy(Rules):
    """The general rules, and those of single deployments over them."""

    deployments: dict[str, Rules] = {}
    branch_deployments: Rules | None = None

    def rules_of(self, deployment: str, *, is_branch: bool) -> Rules:
        """Return the rules of a deployment."""
        own = self.branch_deployments if is_branch else self.deployments.get(deployment)
        return (own or Rules()).over(self)

    @property
    def everywhere(self) -> list[Rules]:
        """All rules, wherever they hold."""
        branches = [self.branch_deployments] if self.branch_deployments else []
        return [self, *self.deployments.values(), *branches]
