"""Where the options of a job come from, in the order in which they win (docs/options.md)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hpc_agent.config import AgentConfig
from hpc_agent.jobs import options, policy
from hpc_agent.jobs.options import Setting, Source
from hpc_agent.jobs.partition_choice import with_partition
from hpc_agent.jobs.step_options import StepTags, covering
from hpc_agent.slurm.partition_facts import PartitionFacts

# In tags of a run: who pays for it.
_OF_THE_WHOLE_RUN = frozenset({"account", "qos", "reservation"})


def run_layers(
    config: AgentConfig,
    *,
    deployment: str,
    location: str | None,
    tags: Mapping[str, str],
    steps: StepTags = (),
) -> list[Source]:
    """Return what a run's options are merged from. Raises ConfigError when its steps contradict."""
    own = config.locations.get(location or "")
    layers = [*_general(config, deployment), _in_file("runs.options", config.runs.options)]
    if own is not None:
        layers.append(_in_file(f"locations.{location}.run_options", own.run_options))
    own_tags = options.from_tags(tags)
    decided = {setting.option for setting in options.settings_of(own_tags)} if steps else set()
    defaults = {setting.option: setting.value for setting in options.merge(layers)} if steps else {}
    return [*layers, *covering(steps, defaults=defaults, decided=decided), own_tags]


def step_layers(
    config: AgentConfig,
    *,
    deployment: str,
    location: str | None,
    tags: Mapping[str, str],
    steps: StepTags,
) -> list[Source]:
    """Return what the options of a step's job are merged from: a step is like a run.

    Of the run's own tags only those that say who pays: how large its own job is means nothing to
    its steps. Raises ConfigError when steps that share the job contradict each other.
    """
    own = config.locations.get(location or "")
    layers = [
        *_general(config, deployment),
        _in_file("runs.options", config.runs.options),
        _in_file("steps.options", config.steps.options),
    ]
    if own is not None:
        layers.append(_in_file(f"locations.{location}.run_options", own.run_options))
        layers.append(_in_file(f"locations.{location}.step_options", own.step_options))
    given = options.from_tags(tags)
    kept = {name: value for name, value in given.options.items() if name in _OF_THE_WHOLE_RUN}
    layers.append(Source(given.name, kept, by_user=True))
    defaults = {setting.option: setting.value for setting in options.merge(layers)}
    return [*layers, *covering(steps, defaults=defaults)]


def server_layers(config: AgentConfig, *, deployment: str, location: str) -> list[Source]:
    """Return what a code server's options are merged from."""
    servers, own = config.code_servers, config.locations.get(location)
    layers = [*_general(config, deployment), _in_file("code_servers.options", servers.options)]
    if config.placement_of(location) == "packed":
        layers.append(_in_file("code_servers.packed.options", servers.packed.options))
    if own is not None:
        name = f"locations.{location}.code_server_options"
        layers.append(_in_file(name, own.code_server_options))
    return layers


def pool_layers(config: AgentConfig, name: str) -> list[Source]:
    """Return what the options of a pool's allocations are merged from: it is of no deployment."""
    return [
        _in_file("options", config.options),
        _in_file(f"pools.{name}.options", config.pools[name].options),
    ]


def settle(
    config: AgentConfig, layers: Sequence[Source], *, deployment: str
) -> tuple[Setting, ...]:
    """Merge layers under the policy of a deployment. Raises ConfigError."""
    rules = config.policy.rules_of(deployment, is_branch=config.is_branch(deployment))
    return policy.settle(rules, layers)


def choose_partition(
    config: AgentConfig,
    settings: Sequence[Setting],
    facts: PartitionFacts,
    *,
    deployment: str,
) -> tuple[Setting, ...]:
    """Add a partition to options that name none, under the same policy. Raises NoPartitionError."""
    rules = config.policy.rules_of(deployment, is_branch=config.is_branch(deployment))
    return with_partition(settings, facts, allowed=rules.partitions)


def check_layers(config: AgentConfig) -> None:
    """Raise ConfigError when an option in agent.yaml is none, or cannot have its value."""
    layers = [
        _in_file("options", config.options),
        _in_file("branch_deployments.options", config.branch_deployments.options),
        _in_file("runs.options", config.runs.options),
        _in_file("steps.options", config.steps.options),
        _in_file("code_servers.options", config.code_servers.options),
        _in_file("code_servers.packed.options", config.code_servers.packed.options),
    ]
    for name, deployment in config.deployments.items():
        layers.append(_in_file(f"deployments.{name}.options", deployment.options))
    for name, location in config.locations.items():
        layers.append(_in_file(f"locations.{name}.run_options", location.run_options))
        layers.append(_in_file(f"locations.{name}.step_options", location.step_options))
        server_options = location.code_server_options
        layers.append(_in_file(f"locations.{name}.code_server_options", server_options))
    for name, pool in config.pools.items():
        layers.append(_in_file(f"pools.{name}.options", pool.options))
    layers += [Source(policy.FORCED, rules.force) for rules in config.policy.everywhere]
    for layer in layers:
        options.merge([layer])
    policy.check_rules(config.policy)


def _general(config: AgentConfig, deployment: str) -> list[Source]:
    layers = [_in_file("options", config.options)]
    if config.is_branch(deployment):
        layers.append(_in_file("branch_deployments.options", config.branch_deployments.options))
    elif deployment in config.deployments:
        own = config.deployments[deployment].options
        layers.append(_in_file(f"deployments.{deployment}.options", own))
    return layers


def _in_file(key: str, values: Mapping[str, object]) -> Source:
    return Source(f"agent.yaml {key}", values)
