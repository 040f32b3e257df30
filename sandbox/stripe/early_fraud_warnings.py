"""Early fraud warnings: the issuer reports a charge as fraud, before a dispute or instead of one
(https://docs.stripe.com/disputes/measuring#early-fraud-warnings)."""

from __future__ import annotations

from typing import Final

from sandbox.stripe.desk import Desk, differences
from sandbox.stripe.store import new_id
from sandbox.stripe.wire import Json

KIND: Final = "radar.early_fraud_warning"
FRAUD_TYPES: Final = (
    "card_never_received",
    "fraudulent_card_application",
    "made_with_counterfeit_card",
    "made_with_lost_card",
    "made_with_stolen_card",
    "misc",
    "unauthorized_use_of_card",
)


class EarlyFraudWarnings:
    """Writes warnings."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def issue(self, charge: Json, fraud_type: str = "misc") -> Json:
        """The issuer reports a charge. Raises ValueError for a type that it does not know."""
        if fraud_type not in FRAUD_TYPES:
            raise ValueError(f"the fraud type is one of {', '.join(FRAUD_TYPES)}")
        warning: Json = {
            "id": new_id("issfr"),
            "object": KIND,
            "actionable": _is_actionable(charge),
            "charge": charge["id"],
            "created": self._desk.clock.now(),
            "fraud_type": fraud_type,
            "livemode": False,
            "payment_intent": charge["payment_intent"],
        }
        self._desk.store.put(warning, parent=charge["id"])
        self._desk.events.emit(f"{KIND}.created", warning)
        return warning

    def review(self, charge: Json) -> None:
        """Have the warnings of a charge say whether a refund may still avoid the dispute."""
        for before in self._desk.store.newest(KIND, parent=charge["id"]):
            warning = before | {"actionable": _is_actionable(charge)}
            if warning != before:
                self._desk.store.put(warning)
                self._desk.events.emit(f"{KIND}.updated", warning, before=differences(before, warning))


def _is_actionable(charge: Json) -> bool:
    return not charge["disputed"] and not charge["refunded"]
