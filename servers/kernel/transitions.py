"""State machines as data: one typed table gives the guard, the SQL trigger, the diagram, the tests and `available_actions`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import ClassVar, Generic, TypeVar, overload

from servers.kernel.errors import Kind, Refusal
from servers.kernel.invariant import invariant

S = TypeVar("S", bound=Enum)


@dataclass(frozen=True, slots=True)
class Arrow(Generic[S]):
    """A change of state that is allowed: `source` None means that the resource is new."""

    source: S | None
    trigger: str
    target: S
    event: str
    """The `ce_type` of the event that the change is told by; "" where the root's event of the same step tells it."""
    command: str = ""
    """The verb by which a user asks for it; "" where only the provider or a job does."""


class IllegalTransition(Refusal):
    """The state does not allow the verb. Each machine's reason is its resource's, and names the key of the id: `refund_id` of
    REFUND_STATE_INVALID."""

    kind = Kind.PRECONDITION
    reason: ClassVar[str] = "PAYMENT_STATE_INVALID"

    def __init__(self, message: str, resource_id: str, state: str) -> None:
        key = f"{self.reason.removesuffix('_STATE_INVALID').lower()}_id"
        super().__init__(message, metadata={key: resource_id, "state": state})


@dataclass(frozen=True)
class Machine(Generic[S]):
    """One resource's states and the arrows between them."""

    name: str
    states: type[S]
    arrows: Sequence[Arrow[S]]
    terminal: frozenset[S]
    refusal: type[IllegalTransition]
    actions: dict[S, tuple[str, ...]] = field(default_factory=dict)
    """Verbs that a state allows without leaving it, for example "refund" in SUCCEEDED."""

    def __post_init__(self) -> None:
        seen = [(arrow.source, arrow.trigger) for arrow in self.arrows]
        invariant(len(seen) == len(set(seen)), "two arrows of one trigger", machine=self.name)
        for arrow in self.arrows:
            invariant(arrow.source not in self.terminal, "an arrow leaves a terminal state", machine=self.name)

    @overload
    def arrow(self, source: None, trigger: str) -> Arrow[S]: ...

    @overload
    def arrow(self, source: S | None, trigger: str, resource_id: str) -> Arrow[S]: ...

    def arrow(self, source: S | None, trigger: str, resource_id: str = "") -> Arrow[S]:
        """Return the arrow that `trigger` takes from `source`. Raises the machine's refusal where there is none; it tells the id
        of the resource, which only a new one has not."""
        for arrow in self.arrows:
            if arrow.source == source and arrow.trigger == trigger:
                return arrow
        state = source.name if source is not None else "new"
        raise self.refusal(f"A {self.name} in {state} does not allow {trigger}.", resource_id, state)

    def allows(self, source: S | None, trigger: str) -> bool:
        """Tell whether `trigger` may happen in `source`."""
        return any(arrow.source == source and arrow.trigger == trigger for arrow in self.arrows)

    def available_actions(self, state: S) -> tuple[str, ...]:
        """Return the verbs that a user may use in `state`, in the table's order."""
        verbs = [arrow.command for arrow in self.arrows if arrow.source == state and arrow.command]
        return tuple(dict.fromkeys([*verbs, *self.actions.get(state, ())]))

    def pairs(self) -> tuple[tuple[str | None, str], ...]:
        """Return (from, to) of every arrow by name, without repeats: what the SQL trigger allows."""
        pairs = [(a.source.name if a.source is not None else None, a.target.name) for a in self.arrows]
        return tuple(dict.fromkeys(pairs))

    def mermaid(self) -> str:
        """Return the state diagram in Mermaid's syntax."""
        lines = ["stateDiagram-v2"]
        lines += [
            f"    {a.source.name if a.source is not None else '[*]'} --> {a.target.name}: {a.trigger}"
            for a in self.arrows
        ]
        lines += [f"    {state.name} --> [*]" for state in self.states if state in self.terminal]
        return "\n".join(lines)
