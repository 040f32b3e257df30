"""Stripe's test cards, as its testing page documents them (https://docs.stripe.com/testing): one row each. The table in docs/sandbox.md is
made of these rows: `python -m sandbox.stripe.tables`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import ClassVar, Final

from sandbox.stripe.declines import DECLINES, Decline


class Secure(Enum):
    """How a card stands to 3-D Secure (https://docs.stripe.com/testing#regulatory-cards)."""

    NOT_SUPPORTED = "is not supported"
    NOT_ENROLLED = "is supported, and the cardholder is never asked"
    OPTIONAL = "when the payment asks for it"
    OPTIONAL_FAILS = "fails when the payment asks for it"
    REQUIRED = "always"
    UNLESS_SET_UP = "always on-session; off-session until set up"
    SET_UP = "always on-session; never off-session"
    FRICTIONLESS = "always, without a challenge"
    LOOKUP_FAILS = "always, and the issuer cannot be asked"


class Case(StrEnum):
    """What the cardholder's bank makes of a complaint: a dispute's `payment_method_details.card.case_type`."""

    INQUIRY = "inquiry"
    """It asks, and takes no money."""
    CHARGEBACK = "chargeback"
    """It takes the money, and hears the merchant."""
    COMPLIANCE = "compliance"
    """The same, because a rule of the network was broken; to counter it costs a fee."""
    BLOCK = "block"
    """What it was told at once made it give up."""
    RESOLUTION = "resolution"
    """The money went back before there was a dispute, for no fee."""


@dataclass(frozen=True, slots=True)
class Opening:
    """How a dispute begins."""

    reason: str = "fraudulent"
    case: Case = Case.CHARGEBACK
    is_compelling: bool = False
    """Whether Visa's Compelling Evidence 3.0 may answer it."""


@dataclass(frozen=True, slots=True)
class TestCard:
    """What a test card does when it is charged."""

    __test__: ClassVar = False
    token: str
    """The static id is `pm_card_<token>`; empty for a card that Stripe documents by its number only."""
    number: str
    brand: str = "visa"
    funding: str = "credit"
    country: str = "US"
    also: tuple[str, ...] = ()
    """Further static ids of the same card, without `pm_card_`."""
    decline: str = ""
    """The decline code; empty where the charge succeeds."""
    attach_declines: bool = False
    """Whether the decline comes when the card is attached to a customer or set up already."""
    secure: Secure = Secure.NOT_ENROLLED
    """When 3-D Secure is asked for."""
    refund_fails: bool = False
    """Whether a refund succeeds at first and fails later."""
    refund_waits: bool = False
    """Whether a refund is pending at first and succeeds later."""
    settles_at_once: bool = False
    """Whether the money skips the pending balance."""
    risk: str = "normal"
    """The charge's `outcome.risk_level`."""
    cvc_check: str = "pass"
    zip_check: str | None = None
    line1_check: str | None = None
    co_brand: str = ""
    disputes: tuple[Opening, ...] = ()
    """The disputes that its first captured charge gets, for equal parts of the amount."""
    is_warned_of: bool = False
    """Whether its first captured charge gets an early fraud warning."""
    sandbox_only: bool = False
    """Whether Stripe has no such id."""

    @property
    def id(self) -> str:
        """The static id of the payment method, or an empty string."""
        if self.sandbox_only:
            return f"pm_sandbox_decline_{self.decline}"
        return f"pm_card_{self.token}" if self.token else ""

    @property
    def ids(self) -> tuple[str, ...]:
        """All static ids."""
        return tuple(filter(None, (self.id, *(f"pm_card_{token}" for token in self.also))))

    @property
    def key(self) -> str:
        """What a payment method of this card is stored under."""
        return self.id if self.sandbox_only else self.number

    @property
    def reason(self) -> Decline | None:
        """Why it is declined, if it is."""
        return DECLINES[self.decline] if self.decline else None

    @property
    def error_code(self) -> str:
        """The error's `code`; empty where the charge succeeds."""
        if self.decline == "authentication_required" or (self.reason is not None and self.reason.is_code):
            return self.decline
        return "card_declined" if self.decline else ""

    @property
    def decline_code(self) -> str:
        """The error's `decline_code`, or what stands for it in `code`; empty where the charge succeeds."""
        return self.decline

    @property
    def advice_code(self) -> str:
        """The error's `advice_code`, or an empty string."""
        return (self.reason.advice if self.reason is not None else None) or ""


_COUNTRIES: Final = {
    "ar": "4000000320000021", "br": "4000000760000002", "ca": "4000001240000000", "cl": "4000001520000001", "co": "4000001700000003",
    "cr": "4000001880000005", "ec": "4000002180000000", "mx": "4000004840008001", "pa": "4000005910000000", "py": "4000006000000066",
    "pe": "4000006040000068", "uy": "4000008580000003", "ae": "4000007840000001", "at": "4000000400000008", "be": "4000000560000004",
    "bg": "4000001000000000", "by": "4000001120000005", "hr": "4000001910000009", "cy": "4000001960000008", "cz": "4000002030000002",
    "dk": "4000002080000001", "ee": "4000002330000009", "fi": "4000002460000001", "fr": "4000002500000003", "de": "4000002760000016",
    "gi": "4000002920000005", "gr": "4000003000000030", "hu": "4000003480000005", "ie": "4000003720000005", "it": "4000003800000008",
    "lv": "4000004280000005", "li": "4000004380000004", "lt": "4000004400000000", "lu": "4000004420000006", "mt": "4000004700000007",
    "nl": "4000005280000002", "no": "4000005780000007", "pl": "4000006160000005", "pt": "4000006200000007", "ro": "4000006420000001",
    "si": "4000007050000006", "sk": "4000007030000001", "es": "4000007240000007", "se": "4000007520000008", "ch": "4000007560000009",
    "gb": "4000008260000000", "au": "4000000360000006", "cn": "4000001560000002", "hk": "4000003440000004", "in": "4000003560000008",
    "jp": "4000003920000003", "my": "4000004580000002", "nz": "4000005540000008", "sg": "4000007020000003", "tw": "4000001580000008",
}  # fmt: skip
BY_COUNTRY: Final = tuple(TestCard(code, number, country=code.upper()) for code, number in _COUNTRIES.items())
"""Visa cards that differ in their country only."""
BRANDS: Final = (
    TestCard("visa", "4242424242424242", also=("us",)),
    TestCard("visa_debit", "4000056655665556", funding="debit"),
    TestCard("mastercard", "5555555555554444", brand="mastercard"),
    TestCard("", "2223003122003222", brand="mastercard"),
    TestCard("mastercard_debit", "5200828282828210", brand="mastercard", funding="debit"),
    TestCard("mastercard_prepaid", "5105105105105100", brand="mastercard", funding="prepaid"),
    TestCard("amex", "378282246310005", brand="amex", secure=Secure.NOT_SUPPORTED, also=("amex_threeDSecureNotSupported",)),
    TestCard("", "371449635398431", brand="amex", secure=Secure.NOT_SUPPORTED),
    TestCard("discover", "6011111111111117", brand="discover"),
    TestCard("", "6011000990139424", brand="discover"),
    TestCard("", "6011981111111113", brand="discover", funding="debit"),
    TestCard("diners", "3056930009020004", brand="diners"),
    TestCard("", "36227206271667", brand="diners"),
    TestCard("", "6555900000604105", brand="discover", country="KR"),
    TestCard("jcb", "3566002020360505", brand="jcb", country="JP"),
    TestCard("", "3530111333300000", brand="jcb", country="JP"),
    TestCard("unionpay", "6200000000000005", brand="unionpay", country="CN"),
    TestCard("", "6200000000000047", brand="unionpay", funding="debit", country="CN"),
    TestCard("", "6205500000000000004", brand="unionpay", country="CN"),
    TestCard("visa_cartesBancaires", "4000002500001001", country="FR", co_brand="cartes_bancaires"),
    TestCard("mastercard_cartesBancaires", "5555552500001001", brand="mastercard", country="FR", co_brand="cartes_bancaires"),
    TestCard("visa_debit_eftposAuCoBranded", "4000050360000001", funding="debit", country="AU", co_brand="eftpos_au"),
    TestCard("mastercard_debit_eftposAuCoBranded", "5555050360000080", brand="mastercard", funding="debit", country="AU",
             co_brand="eftpos_au"),
    TestCard("gb_debit", "4000058260000005", funding="debit", country="GB"),
    TestCard("gb_mastercard", "5555558265554449", brand="mastercard", country="GB"),
    TestCard("ae_mastercard", "5200007840000022", brand="mastercard", country="AE"),
    TestCard("", "4000006820000007", country="SA"),
    TestCard("th_credit", "4000007640000003", country="TH"),
    TestCard("th_debit", "4000057640000008", funding="debit", country="TH"),
    TestCard("debit_visaFsaProductCode", "4000051230000072", funding="debit", also=("debit_visaHsaProductCode",)),
    TestCard("mastercard_debit_mastercardFsaProductCode", "5200828282828897", brand="mastercard", funding="debit"),
)  # fmt: skip
SPECIAL: Final = (
    # Declines on attach, on setup and on charge alike: the issuer refuses the check that attaching makes.
    TestCard("visa_chargeDeclined", "4000000000000002", decline="generic_decline", attach_declines=True, also=("chargeDeclined",)),
    TestCard("visa_chargeDeclinedInsufficientFunds", "4000000000009995", decline="insufficient_funds", attach_declines=True,
          also=("chargeDeclinedInsufficientFunds",)),
    TestCard("visa_chargeDeclinedLostCard", "4000000000009987", decline="lost_card", attach_declines=True),
    TestCard("visa_chargeDeclinedStolenCard", "4000000000009979", decline="stolen_card", attach_declines=True),
    TestCard("chargeDeclinedExpiredCard", "4000000000000069", decline="expired_card", attach_declines=True),
    TestCard("chargeDeclinedIncorrectCvc", "4000000000000127", decline="incorrect_cvc", attach_declines=True),
    TestCard("chargeDeclinedProcessingError", "4000000000000119", decline="processing_error", attach_declines=True),
    TestCard("visa_chargeDeclinedVelocityLimitExceeded", "4000000000006975", decline="card_velocity_exceeded", attach_declines=True),
    # Attaches to a customer, then declines each charge.
    TestCard("chargeCustomerFail", "4000000000000341", decline="generic_decline"),
    # 3-D Secure at every on-session confirm; off-session payments are declined with authentication_required.
    TestCard("authenticationRequired", "4000002760003184", secure=Secure.REQUIRED),
    # The same until a SetupIntent, or a payment with setup_future_usage=off_session, has set the card up for off-session payments.
    TestCard("authenticationRequiredOnSetup", "4000002500003155", secure=Secure.UNLESS_SET_UP),
    TestCard("authenticationRequiredSetupForOffSession", "4000003800000446", secure=Secure.SET_UP),
    # The cardholder authenticates, and the issuer declines all the same.
    TestCard("authenticationRequiredChargeDeclinedInsufficientFunds", "4000008260003178", decline="insufficient_funds",
          secure=Secure.REQUIRED),
    TestCard("threeDSecureRequiredChargeDeclined", "4000008400001629", decline="generic_decline", secure=Secure.REQUIRED),
    # Whether 3-D Secure is required, possible, or fails.
    TestCard("threeDSecure2Required", "4000000000003220", secure=Secure.REQUIRED, country="IE", also=("threeDSecureRequired",)),
    TestCard("", "4000008400000027", secure=Secure.REQUIRED),
    TestCard("", "4000000032200000", secure=Secure.FRICTIONLESS),
    TestCard("threeDSecureRequiredProcessingError", "4000008400001280", secure=Secure.LOOKUP_FAILS),
    TestCard("threeDSecureOptional", "4000000000003055", secure=Secure.OPTIONAL),
    TestCard("threeDSecureOptionalProcessingError", "4000000000003097", secure=Secure.OPTIONAL_FAILS),
    TestCard("adaptive3dsChallenge", "4000008405600003", secure=Secure.OPTIONAL),
    # Radar, with Stripe's default rules: what is of the highest risk is blocked.
    TestCard("radarBlock", "4100000000000019", decline="fraudulent", attach_declines=True, risk="highest",
          also=("chargeDeclinedFraudulent",)),
    TestCard("riskLevelHighest", "4000000000004954", decline="fraudulent", risk="highest"),
    TestCard("riskLevelElevated", "4000000000009235", risk="elevated"),
    TestCard("highFraudDisputeScore", "4000008400000407"),
    TestCard("highEfwScore", "4000008400000159"),
    TestCard("radarDynamicRiskThreshold", "4000008400001017"),
    TestCard("freeTrialAbuseBlock", "4001858821843804"),
    # Charges succeed, and the checks tell.
    TestCard("cvcCheckFail", "4000000000000101", cvc_check="fail"),
    TestCard("cvcCheckFailElevatedRisk", "4000058400307872", cvc_check="fail", risk="elevated"),
    TestCard("avsZipFail", "4000000000000036", zip_check="fail"),
    TestCard("avsZipFailElevatedRisk", "4000058400306072", zip_check="fail", risk="elevated"),
    TestCard("avsLine1Fail", "4000000000000028", line1_check="fail"),
    TestCard("avsFail", "4000000000000010", zip_check="fail", line1_check="fail"),
    TestCard("avsUnchecked", "4000000000000044", zip_check="unavailable", line1_check="unavailable"),
    # The refund succeeds, then fails; the refund is pending, then succeeds.
    TestCard("refundFail", "4000000000005126", refund_fails=True),
    TestCard("pendingRefund", "4000000000007726", refund_waits=True),
    # The money is available at once.
    TestCard("bypassPending", "4000000000000077", settles_at_once=True),
    TestCard("bypassPendingInternational", "4000003720000278", settles_at_once=True, country="IE"),
    # The charge succeeds, and the cardholder's bank objects.
    TestCard("createDispute", "4000000000000259", disputes=(Opening(),)),
    TestCard("createDisputeProductNotReceived", "4000000000002685", disputes=(Opening("product_not_received"),)),
    TestCard("createDisputeInquiry", "4000000000001976", disputes=(Opening(case=Case.INQUIRY),)),
    TestCard("createIssuerFraudRecord", "4000000000005423", is_warned_of=True),
    TestCard("createMultipleDisputes", "4000000404000079", disputes=(Opening(), Opening())),
    TestCard("createCe3EligibleDispute", "4000000404000038", disputes=(Opening(is_compelling=True),)),
    TestCard("createComplianceDispute", "4000008400000779", disputes=(Opening("noncompliant", Case.COMPLIANCE),)),
    TestCard("createMastercardComplianceDispute", "5105008400000002", brand="mastercard",
             disputes=(Opening("noncompliant", Case.COMPLIANCE),)),
    # Stripe answers this one by itself in some accounts; here it waits for evidence as any other does.
    TestCard("createAutoRepresentmentEligibleDispute", "4000000001000043", disputes=(Opening(),)),
)  # fmt: skip
ANY_DECLINE: Final = tuple(TestCard("", "4000000000000341", decline=code, sandbox_only=True) for code in DECLINES)
"""Attach to a customer, then decline each charge with a code of choice: `pm_sandbox_decline_<code>`, which Stripe does not have."""
CARDS: Final = (*BRANDS, *BY_COUNTRY, *SPECIAL)
BY_ID: Final = {identifier: card for card in (*CARDS, *ANY_DECLINE) for identifier in card.ids}
BY_NUMBER: Final = {card.number: card for card in CARDS}
BY_KEY: Final = {card.key: card for card in (*CARDS, *ANY_DECLINE)}


def is_luhn_valid(number: str) -> bool:
    """Say whether a number has the check digit of a card number."""
    digits = [int(digit) for digit in reversed(number)]
    return sum(d if place % 2 == 0 else sum(divmod(2 * d, 10)) for place, d in enumerate(digits)) % 10 == 0
