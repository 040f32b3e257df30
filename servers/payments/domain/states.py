"""The states of each resource and the arrows between them."""

from __future__ import annotations

from enum import Enum
from typing import ClassVar, Final

from servers.kernel.errors import FieldViolation
from servers.kernel.transitions import Arrow, IllegalTransition, Machine


class PaymentState(Enum):
    """The states of a payment; the names are those of the contract."""

    REQUIRES_PAYMENT_METHOD = "REQUIRES_PAYMENT_METHOD"
    REQUIRES_CONFIRMATION = "REQUIRES_CONFIRMATION"
    REQUIRES_REVIEW = "REQUIRES_REVIEW"
    REQUIRES_ACTION = "REQUIRES_ACTION"
    PROCESSING = "PROCESSING"
    REQUIRES_CAPTURE = "REQUIRES_CAPTURE"
    PARTIALLY_CAPTURED = "PARTIALLY_CAPTURED"
    SUCCEEDED = "SUCCEEDED"
    CANCELED = "CANCELED"
    EXPIRED = "EXPIRED"
    CONFLICTED = "CONFLICTED"


class ReviewState(Enum):
    """How a person's look at a payment ended, if it has."""

    OPEN = "OPEN"
    APPROVED = "APPROVED"
    REJECTED = "REJECTED"
    TIMED_OUT = "TIMED_OUT"


class Purpose(Enum):
    """What a payment is for."""

    SALE = "SALE"
    TOP_UP = "TOP_UP"


class CaptureMethod(Enum):
    """When the money is taken."""

    AUTOMATIC = "AUTOMATIC"
    MANUAL = "MANUAL"


class AttemptState(Enum):
    """The states of an attempt."""

    IN_REVIEW = "IN_REVIEW"
    CREATED = "CREATED"
    SENT = "SENT"
    SUCCEEDED = "SUCCEEDED"
    DECLINED = "DECLINED"
    NOT_SENT = "NOT_SENT"
    REQUIRES_ACTION = "REQUIRES_ACTION"
    PENDING = "PENDING"
    UNKNOWN = "UNKNOWN"
    NEEDS_OPERATOR = "NEEDS_OPERATOR"


class RefundState(Enum):
    """The states of a refund."""

    PENDING = "PENDING"
    REQUIRES_ACTION = "REQUIRES_ACTION"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELED = "CANCELED"


class DisputeState(Enum):
    """The states of a dispute."""

    EARLY_WARNING = "EARLY_WARNING"
    NEEDS_RESPONSE = "NEEDS_RESPONSE"
    UNDER_REVIEW = "UNDER_REVIEW"
    ACCEPTED = "ACCEPTED"
    WON = "WON"
    LOST = "LOST"
    CLOSED = "CLOSED"
    PREVENTED = "PREVENTED"


class DisputeStage(Enum):
    """How far a dispute has come; money moves from CHARGEBACK on."""

    INQUIRY = "INQUIRY"
    CHARGEBACK = "CHARGEBACK"
    PRE_ARBITRATION = "PRE_ARBITRATION"


class FeePayer(Enum):
    """Who bears what Stripe takes for a dispute."""

    MERCHANT = "MERCHANT"
    PLATFORM = "PLATFORM"


class OperationKind(Enum):
    """What is asked of Stripe besides a confirm."""

    CAPTURE = "CAPTURE"
    CANCEL = "CANCEL"


class OperationState(Enum):
    """The states of a capture or cancel while it is carried out."""

    CREATED = "CREATED"
    UNKNOWN = "UNKNOWN"
    NEEDS_OPERATOR = "NEEDS_OPERATOR"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    NOT_SENT = "NOT_SENT"


class SuspenseCause(Enum):
    """Why money that Stripe took is in suspense."""

    LATE_CAPTURE = "LATE_CAPTURE"
    CONFLICT = "CONFLICT"


class MethodState(Enum):
    """The states of a payment method."""

    ATTACHING = "ATTACHING"
    ATTACHED = "ATTACHED"
    REJECTED = "REJECTED"
    DETACHING = "DETACHING"
    DETACHED = "DETACHED"


class SetupState(Enum):
    """The states of a setup intent."""

    REQUIRES_PAYMENT_METHOD = "REQUIRES_PAYMENT_METHOD"
    PROCESSING = "PROCESSING"
    REQUIRES_ACTION = "REQUIRES_ACTION"
    SUCCEEDED = "SUCCEEDED"
    CANCELED = "CANCELED"


class Usage(Enum):
    """What a mandate permits; `NONE` where nothing is asked for."""

    NONE = ""
    ON_SESSION = "ON_SESSION"
    OFF_SESSION = "OFF_SESSION"

    def covers(self, asked: Usage) -> bool:
        """Tell whether a mandate for this use permits the one asked for."""
        order = (Usage.NONE, Usage.ON_SESSION, Usage.OFF_SESSION)
        return order.index(self) >= order.index(asked)


class MandateState(Enum):
    """The states of a mandate."""

    ACTIVE = "ACTIVE"
    REVOKED = "REVOKED"


class PaymentStateInvalid(IllegalTransition):
    """The payment's state does not allow the verb."""

    reason: ClassVar[str] = "PAYMENT_STATE_INVALID"


class NotCarriedOut(PaymentStateInvalid):
    """Stripe, or the ledger where a wallet pays, would not capture or cancel."""

    def __init__(self, payment_id: str, state: str, code: str) -> None:
        super().__init__("It was not carried out; read the payment to see how it stands.", payment_id, state)
        self.metadata["code"] = code


class FieldFixed(PaymentStateInvalid):
    """A field of the payment that cannot change in its state."""

    def __init__(self, payment_id: str, state: str, field: str, why: str) -> None:
        super().__init__(f"{field} {why}.", payment_id, state)
        self.metadata["field"] = field
        self.violations = (FieldViolation(field=field, description=why),)


class RefundStateInvalid(IllegalTransition):
    """The refund's state does not allow the verb."""

    reason: ClassVar[str] = "REFUND_STATE_INVALID"


class DisputeStateInvalid(IllegalTransition):
    """The dispute's state or stage does not allow the verb."""

    reason: ClassVar[str] = "DISPUTE_STATE_INVALID"


class DisputeNotAcceptable(DisputeStateInvalid):
    """Only a chargeback that waits for its merchant can be accepted."""

    def __init__(self, dispute_id: str, state: str, stage: str) -> None:
        hint = "; refund its payment instead" if stage == DisputeStage.INQUIRY.name else ""
        super().__init__(f"A dispute in {state} at the stage {stage} cannot be accepted{hint}.", dispute_id, state)
        self.metadata["stage"] = stage


class AcceptNotCarriedOut(DisputeStateInvalid):
    """Stripe would not take the acceptance of a dispute."""

    def __init__(self, dispute_id: str, state: str, code: str) -> None:
        super().__init__("It was not carried out; read the dispute to see how it stands.", dispute_id, state)
        self.metadata["code"] = code


class MethodStateInvalid(IllegalTransition):
    """The payment method's state does not allow the use."""

    reason: ClassVar[str] = "PAYMENT_METHOD_STATE_INVALID"


class SetupStateInvalid(IllegalTransition):
    """The setup intent's state does not allow the verb."""

    reason: ClassVar[str] = "SETUP_INTENT_STATE_INVALID"


class MandateStateInvalid(IllegalTransition):
    """The mandate's state does not allow the verb."""

    reason: ClassVar[str] = "MANDATE_STATE_INVALID"


_P = PaymentState


PAYMENT: Final = Machine(
    name="payment",
    states=PaymentState,
    terminal=frozenset({_P.SUCCEEDED, _P.CANCELED, _P.EXPIRED}),
    refusal=PaymentStateInvalid,
    actions={_P.SUCCEEDED: ("refund",), _P.REQUIRES_REVIEW: ("reject",)},
    arrows=(
        Arrow(None, "create", _P.REQUIRES_PAYMENT_METHOD, "payment.created"),
        Arrow(None, "create_with_method", _P.REQUIRES_CONFIRMATION, "payment.created"),
        Arrow(_P.REQUIRES_PAYMENT_METHOD, "attach", _P.REQUIRES_CONFIRMATION, "payment.updated", "confirm"),
        Arrow(_P.REQUIRES_PAYMENT_METHOD, "cancel", _P.CANCELED, "payment.canceled", "cancel"),
        Arrow(_P.REQUIRES_CONFIRMATION, "send", _P.PROCESSING, "payment.processing", "confirm"),
        Arrow(_P.REQUIRES_CONFIRMATION, "cancel", _P.CANCELED, "payment.canceled", "cancel"),
        Arrow(_P.REQUIRES_CONFIRMATION, "review", _P.REQUIRES_REVIEW, "payment.in_review"),
        Arrow(_P.REQUIRES_REVIEW, "approve", _P.PROCESSING, "payment.processing", "approve"),
        Arrow(_P.REQUIRES_REVIEW, "cancel", _P.CANCELED, "payment.canceled", "cancel"),
        Arrow(_P.PROCESSING, "not_sent", _P.REQUIRES_CONFIRMATION, "payment.updated"),
        Arrow(_P.PROCESSING, "succeed", _P.SUCCEEDED, "payment.succeeded"),
        Arrow(_P.PROCESSING, "authorize", _P.REQUIRES_CAPTURE, "payment.authorized"),
        Arrow(_P.PROCESSING, "decline", _P.REQUIRES_PAYMENT_METHOD, "payment.declined"),
        Arrow(_P.PROCESSING, "require_action", _P.REQUIRES_ACTION, "payment.requires_action"),
        Arrow(_P.PROCESSING, "conflict", _P.CONFLICTED, "payment.conflicted"),
        Arrow(_P.REQUIRES_ACTION, "return", _P.PROCESSING, "payment.processing"),
        Arrow(_P.REQUIRES_ACTION, "decline", _P.REQUIRES_PAYMENT_METHOD, "payment.declined"),
        Arrow(_P.REQUIRES_ACTION, "cancel", _P.CANCELED, "payment.canceled", "cancel"),
        Arrow(_P.REQUIRES_CAPTURE, "capture_part", _P.PARTIALLY_CAPTURED, "payment.partially_captured", "capture"),
        Arrow(_P.REQUIRES_CAPTURE, "capture_last", _P.SUCCEEDED, "payment.succeeded", "capture"),
        Arrow(_P.REQUIRES_CAPTURE, "cancel", _P.CANCELED, "payment.canceled", "cancel"),
        Arrow(_P.REQUIRES_CAPTURE, "expire", _P.EXPIRED, "payment.expired"),
        Arrow(_P.REQUIRES_CAPTURE, "conflict", _P.CONFLICTED, "payment.conflicted"),
        Arrow(_P.PARTIALLY_CAPTURED, "capture_part", _P.PARTIALLY_CAPTURED, "payment.partially_captured", "capture"),
        Arrow(_P.PARTIALLY_CAPTURED, "capture_last", _P.SUCCEEDED, "payment.succeeded", "capture"),
        # The authorization's window ends: what was captured stays captured.
        Arrow(_P.PARTIALLY_CAPTURED, "expire", _P.SUCCEEDED, "payment.succeeded"),
        Arrow(_P.PARTIALLY_CAPTURED, "conflict", _P.CONFLICTED, "payment.conflicted"),
        # By a person.
        Arrow(_P.CONFLICTED, "accept", _P.SUCCEEDED, "payment.succeeded"),
        Arrow(_P.CONFLICTED, "cancel_conflict", _P.CANCELED, "payment.canceled"),
    ),
)


_A = AttemptState


ATTEMPT: Final = Machine(
    name="attempt",
    states=AttemptState,
    terminal=frozenset({_A.SUCCEEDED, _A.DECLINED, _A.NOT_SENT}),
    refusal=PaymentStateInvalid,
    arrows=(
        Arrow(None, "create", _A.CREATED, ""),
        Arrow(None, "review", _A.IN_REVIEW, ""),
        Arrow(_A.IN_REVIEW, "approve", _A.CREATED, ""),
        Arrow(_A.IN_REVIEW, "decline", _A.DECLINED, ""),
        Arrow(_A.CREATED, "send", _A.SENT, ""),
        Arrow(_A.CREATED, "not_sent", _A.NOT_SENT, ""),
        Arrow(_A.SENT, "succeed", _A.SUCCEEDED, ""),
        Arrow(_A.SENT, "decline", _A.DECLINED, ""),
        Arrow(_A.SENT, "not_sent", _A.NOT_SENT, ""),
        Arrow(_A.SENT, "require_action", _A.REQUIRES_ACTION, ""),
        Arrow(_A.SENT, "pend", _A.PENDING, ""),
        Arrow(_A.SENT, "lose", _A.UNKNOWN, ""),
        Arrow(_A.REQUIRES_ACTION, "pend", _A.PENDING, ""),
        Arrow(_A.REQUIRES_ACTION, "succeed", _A.SUCCEEDED, ""),
        Arrow(_A.REQUIRES_ACTION, "decline", _A.DECLINED, ""),
        Arrow(_A.PENDING, "succeed", _A.SUCCEEDED, ""),
        Arrow(_A.PENDING, "decline", _A.DECLINED, ""),
        Arrow(_A.UNKNOWN, "succeed", _A.SUCCEEDED, ""),
        Arrow(_A.UNKNOWN, "decline", _A.DECLINED, ""),
        Arrow(_A.UNKNOWN, "require_action", _A.REQUIRES_ACTION, ""),
        Arrow(_A.UNKNOWN, "pend", _A.PENDING, ""),
        Arrow(_A.UNKNOWN, "give_up", _A.NEEDS_OPERATOR, ""),
        # A person looks for the answer, and the provider may still send it.
        Arrow(_A.NEEDS_OPERATOR, "succeed", _A.SUCCEEDED, ""),
        Arrow(_A.NEEDS_OPERATOR, "decline", _A.DECLINED, ""),
        Arrow(_A.NEEDS_OPERATOR, "require_action", _A.REQUIRES_ACTION, ""),
        Arrow(_A.NEEDS_OPERATOR, "pend", _A.PENDING, ""),
    ),
)


_R = RefundState


REFUND: Final = Machine(
    name="refund",
    states=RefundState,
    # SUCCEEDED is left by one arrow only, the bank's return of the money.
    terminal=frozenset({_R.FAILED, _R.CANCELED}),
    refusal=RefundStateInvalid,
    arrows=(
        Arrow(None, "create", _R.PENDING, "refund.created"),
        # What it waits for has changed.
        Arrow(_R.PENDING, "wait", _R.PENDING, "refund.updated"),
        Arrow(_R.PENDING, "succeed", _R.SUCCEEDED, "refund.succeeded"),
        Arrow(_R.PENDING, "fail", _R.FAILED, "refund.failed"),
        Arrow(_R.PENDING, "cancel", _R.CANCELED, "refund.canceled", "cancel"),
        Arrow(_R.PENDING, "require_action", _R.REQUIRES_ACTION, "refund.requires_action"),
        Arrow(_R.REQUIRES_ACTION, "pend", _R.PENDING, "refund.updated"),
        Arrow(_R.REQUIRES_ACTION, "cancel", _R.CANCELED, "refund.canceled", "cancel"),
        Arrow(_R.SUCCEEDED, "fail", _R.FAILED, "refund.failed"),
    ),
)


_D = DisputeState


DISPUTE: Final = Machine(
    name="dispute",
    states=DisputeState,
    # WON is left by one arrow only, a new stage; in LOST and PREVENTED Stripe may still move money.
    terminal=frozenset({_D.CLOSED}),
    refusal=DisputeStateInvalid,
    arrows=(
        Arrow(None, "warn", _D.EARLY_WARNING, "dispute.opened"),
        Arrow(None, "open", _D.NEEDS_RESPONSE, "dispute.opened"),
        Arrow(_D.EARLY_WARNING, "prevent", _D.PREVENTED, "dispute.closed"),
        # A network's rule gave the cardholder the money back before anybody could respond.
        Arrow(_D.PREVENTED, "take_back", _D.PREVENTED, "dispute.updated"),
        Arrow(_D.EARLY_WARNING, "dispute", _D.NEEDS_RESPONSE, "dispute.updated"),
        Arrow(_D.NEEDS_RESPONSE, "accept", _D.ACCEPTED, "dispute.updated"),
        Arrow(_D.NEEDS_RESPONSE, "submit", _D.UNDER_REVIEW, "dispute.updated"),
        Arrow(_D.NEEDS_RESPONSE, "lose", _D.LOST, "dispute.lost"),
        # An inquiry: it ends without a chargeback, or with one.
        Arrow(_D.NEEDS_RESPONSE, "close", _D.CLOSED, "dispute.closed"),
        Arrow(_D.UNDER_REVIEW, "close", _D.CLOSED, "dispute.closed"),
        Arrow(_D.NEEDS_RESPONSE, "escalate", _D.NEEDS_RESPONSE, "dispute.updated"),
        Arrow(_D.UNDER_REVIEW, "escalate", _D.NEEDS_RESPONSE, "dispute.updated"),
        Arrow(_D.UNDER_REVIEW, "win", _D.WON, "dispute.won"),
        Arrow(_D.UNDER_REVIEW, "lose", _D.LOST, "dispute.lost"),
        Arrow(_D.ACCEPTED, "lose", _D.LOST, "dispute.lost"),
        Arrow(_D.WON, "reopen", _D.NEEDS_RESPONSE, "dispute.updated"),
        # The merchant's wish to accept, on its way to Stripe; and what became of it where it was not carried out.
        Arrow(_D.NEEDS_RESPONSE, "concede", _D.NEEDS_RESPONSE, "dispute.updated", "accept"),
        Arrow(_D.NEEDS_RESPONSE, "let_go", _D.NEEDS_RESPONSE, "dispute.updated"),
        *(
            Arrow(state, trigger, state, event)
            for state in (_D.NEEDS_RESPONSE, _D.UNDER_REVIEW, _D.ACCEPTED, _D.WON, _D.LOST, _D.PREVENTED)
            for trigger, event in (
                ("note", "dispute.updated"),
                ("withdraw", "dispute.funds_withdrawn"),
                ("reinstate", "dispute.funds_reinstated"),
            )
        ),
    ),
)


_O = OperationState


OPERATION: Final = Machine(
    name="operation",
    states=OperationState,
    terminal=frozenset({_O.SUCCEEDED, _O.FAILED, _O.NOT_SENT}),
    refusal=PaymentStateInvalid,
    arrows=(
        Arrow(None, "create", _O.CREATED, ""),
        Arrow(_O.CREATED, "succeed", _O.SUCCEEDED, ""),
        Arrow(_O.CREATED, "fail", _O.FAILED, ""),
        Arrow(_O.CREATED, "not_sent", _O.NOT_SENT, ""),
        Arrow(_O.CREATED, "lose", _O.UNKNOWN, ""),
        Arrow(_O.UNKNOWN, "succeed", _O.SUCCEEDED, ""),
        Arrow(_O.UNKNOWN, "fail", _O.FAILED, ""),
        Arrow(_O.UNKNOWN, "give_up", _O.NEEDS_OPERATOR, ""),
        Arrow(_O.NEEDS_OPERATOR, "succeed", _O.SUCCEEDED, ""),
        Arrow(_O.NEEDS_OPERATOR, "fail", _O.FAILED, ""),
    ),
)


_M = MethodState


METHOD: Final = Machine(
    name="payment_method",
    states=MethodState,
    terminal=frozenset({_M.REJECTED, _M.DETACHED}),
    refusal=MethodStateInvalid,
    arrows=(
        Arrow(None, "create", _M.ATTACHING, ""),
        # Stripe attached it itself, with a setup intent or a payment that saves its card.
        Arrow(None, "adopt", _M.ATTACHED, "payment_method.attached"),
        Arrow(_M.ATTACHING, "attach", _M.ATTACHED, "payment_method.attached"),
        Arrow(_M.ATTACHING, "reject", _M.REJECTED, ""),
        Arrow(_M.ATTACHED, "set_default", _M.ATTACHED, "payment_method.updated", "set_default"),
        Arrow(_M.ATTACHED, "remove", _M.DETACHING, "payment_method.updated", "detach"),
        Arrow(_M.DETACHING, "detach", _M.DETACHED, "payment_method.detached"),
    ),
)


_S = SetupState


SETUP: Final = Machine(
    name="setup_intent",
    states=SetupState,
    terminal=frozenset({_S.SUCCEEDED, _S.CANCELED}),
    refusal=SetupStateInvalid,
    arrows=(
        Arrow(None, "create", _S.REQUIRES_PAYMENT_METHOD, "setup_intent.created"),
        Arrow(_S.REQUIRES_PAYMENT_METHOD, "send", _S.PROCESSING, "setup_intent.processing", "confirm"),
        Arrow(_S.PROCESSING, "succeed", _S.SUCCEEDED, "setup_intent.succeeded"),
        Arrow(_S.PROCESSING, "require_action", _S.REQUIRES_ACTION, "setup_intent.requires_action"),
        Arrow(_S.PROCESSING, "decline", _S.REQUIRES_PAYMENT_METHOD, "setup_intent.failed"),
        Arrow(_S.PROCESSING, "not_sent", _S.REQUIRES_PAYMENT_METHOD, "setup_intent.updated"),
        Arrow(_S.PROCESSING, "cancel", _S.CANCELED, "setup_intent.canceled"),
        Arrow(_S.REQUIRES_ACTION, "return", _S.PROCESSING, "setup_intent.processing"),
        Arrow(_S.REQUIRES_ACTION, "decline", _S.REQUIRES_PAYMENT_METHOD, "setup_intent.failed"),
        Arrow(_S.REQUIRES_ACTION, "cancel", _S.CANCELED, "setup_intent.canceled"),
    ),
)


MANDATE: Final = Machine(
    name="mandate",
    states=MandateState,
    terminal=frozenset({MandateState.REVOKED}),
    refusal=MandateStateInvalid,
    arrows=(
        Arrow(None, "give", MandateState.ACTIVE, "mandate.created"),
        Arrow(MandateState.ACTIVE, "revoke", MandateState.REVOKED, "mandate.revoked", "revoke"),
    ),
)


MACHINES: Final = (PAYMENT, ATTEMPT, OPERATION, REFUND, DISPUTE, METHOD, SETUP, MANDATE)


OPEN_ATTEMPTS: Final = frozenset({_A.CREATED, _A.SENT, _A.PENDING, _A.UNKNOWN, _A.NEEDS_OPERATOR})


OPEN_REFUNDS: Final = frozenset({_R.PENDING, _R.REQUIRES_ACTION})
"""Their amounts are reserved."""


OPEN_SETUPS: Final = frozenset({_S.PROCESSING, _S.REQUIRES_ACTION})


AUTHORIZED: Final = frozenset({_P.REQUIRES_CAPTURE, _P.PARTIALLY_CAPTURED})
"""Money is held for the payment."""


CARRIED_OUT: Final = frozenset({_A.REQUIRES_ACTION, _A.PENDING})
"""Stripe has accepted the confirm: whatever its object shows afterwards is this attempt's."""


UNCERTAIN: Final = frozenset({_A.SENT, _A.UNKNOWN, _A.NEEDS_OPERATOR})
