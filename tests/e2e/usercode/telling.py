"""Ops that say much, or what is hard to write down."""

import threading
from collections.abc import Iterator

import dagster as dg

STRANGE = "grüße 🌧 \x00 \x07 \x1b[31mred\x1b[0m \u202e \ud83d tail"
"""With a NUL, control characters, a direction mark, and half of a surrogate pair."""


@dg.op
def tells_strange_things(context: dg.OpExecutionContext) -> None:
    """In a message, metadata, and an asset's key."""
    context.log.info(STRANGE)
    context.log_event(
        dg.AssetMaterialization(
            dg.AssetKey(["wëtter 🌧", 'a "b" \\ /c']), metadata={"strange \x07": STRANGE}
        )
    )
    print("grüße 🌧 \x07\x1b[31mred", flush=True)


@dg.job(
    executor_def=dg.multiprocess_executor,
    name="a_name_that_is_long_" + 200 * "x",
    tags={"wëtter": "🌧 regen"},
)
def telling_strange_things() -> None:
    """With a name that no scheduler would take."""
    tells_strange_things()


class UnpicklableError(Exception):
    """Holds a lock, and needs two arguments to be made."""

    def __init__(self, lock: object, text: str) -> None:
        """Take what pickle cannot."""
        super().__init__(text)
        self.lock = lock


@dg.op
def raises_what_cannot_be_pickled() -> None:
    """With a message of a megabyte."""
    raise UnpicklableError(threading.Lock(), "x" * (1 << 20) + " the end of a long message")


@dg.job(executor_def=dg.multiprocess_executor)
def failing_at_length() -> None:
    """A process for its step."""
    raises_what_cannot_be_pickled()


class Lines(dg.Config):
    """How many."""

    lines: int


@dg.op
def tells_much(context: dg.OpExecutionContext, config: Lines) -> None:
    """Each line is an event."""
    for number in range(config.lines):
        context.log.info(f"line {number}")


@dg.job(executor_def=dg.in_process_executor)
def telling_much() -> None:
    """One process."""
    tells_much()


@dg.op(out=dg.DynamicOut())
def fans_out() -> Iterator[dg.DynamicOutput[int]]:
    """Into many."""
    for number in range(12):
        yield dg.DynamicOutput(number, mapping_key=str(number))


@dg.op
def doubles(number: int) -> int:
    """Each."""
    return 2 * number


@dg.op
def sums(context: dg.OpExecutionContext, numbers: list[int]) -> None:
    """All of them."""
    context.log.info(f"the sum is {sum(numbers)}")


@dg.job(
    executor_def=dg.multiprocess_executor.configured(
        {"max_concurrent": 4, "start_method": {"forkserver": {}}}
    )
)
def fanning_out() -> None:
    """Steps that are known at run time alone."""
    sums(fans_out().map(doubles).collect())


@dg.success_hook
def says_success(context: dg.HookContext) -> None:
    """After each step that succeeds."""
    context.log.info(f"hook: {context.op.name} succeeded")


@dg.failure_hook
def says_failure(context: dg.HookContext) -> None:
    """After each step that fails."""
    context.log.info(f"hook: {context.op.name} failed with {context.op_exception}")


@dg.op
def succeeds() -> None:
    """Do nothing."""


@dg.op
def fails() -> None:
    """As asked."""
    raise ValueError("as asked")


@dg.job(executor_def=dg.multiprocess_executor, hooks={says_success, says_failure})
def hooked() -> None:
    """A step of each kind."""
    succeeds()
    fails()


@dg.asset
def checked() -> int:
    """Is not what it should be."""
    return 0


@dg.asset_check(asset=checked, blocking=True)
def is_more() -> dg.AssetCheckResult:
    """It is not."""
    return dg.AssetCheckResult(passed=False)


@dg.asset
def behind(checked: int) -> int:
    """Must not be made."""
    return checked


defs = dg.Definitions(
    assets=[checked, behind],
    asset_checks=[is_more],
    jobs=[telling_strange_things, failing_at_length, telling_much, fanning_out, hooked],
)
