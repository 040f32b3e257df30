"""The pages of the cardholder's bank."""

from __future__ import annotations

import html
from typing import Final

from sandbox.stripe.amounts import THREE_DECIMALS, ZERO_DECIMALS
from sandbox.stripe.wire import Json

_FRAME: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>3-D Secure (simulated)</title>
<style>
:root {{
  color-scheme: light dark; --back: #eef1f6; --card: #fff; --text: #1c2333; --faint: #677086; --line: #dde2ec; --go: #2f5bea;
}}
@media (prefers-color-scheme: dark) {{
  :root {{ --back: #12151d; --card: #1c212d; --text: #e8ebf3; --faint: #98a1b5; --line: #313849; --go: #6f92ff; }}
}}
* {{ box-sizing: border-box }}
body {{ margin: 0; min-height: 100vh; display: grid; place-items: center; padding: 1rem; background: var(--back);
  color: var(--text); font: 16px/1.5 system-ui, sans-serif }}
main {{ width: 100%; max-width: 26rem; background: var(--card); border: 1px solid var(--line); border-radius: 14px;
  padding: 1.75rem; box-shadow: 0 10px 30px rgb(10 20 50 / .08) }}
.bank {{ display: flex; justify-content: space-between; font-size: .8rem; color: var(--faint); letter-spacing: .02em }}
.bank b {{ background: #ffe7a8; color: #5a4300; border-radius: 99px; padding: 0 .6rem; font-weight: 600 }}
h1 {{ font-size: 1.25rem; margin: 1.25rem 0 .5rem }}
.amount {{ font-size: 2rem; font-weight: 650; margin: .5rem 0 }}
dl {{ display: grid; grid-template-columns: auto 1fr; gap: .25rem 1rem; margin: 1rem 0 1.5rem; padding-top: 1rem;
  border-top: 1px solid var(--line); font-size: .875rem }}
dt {{ color: var(--faint) }}
dd {{ margin: 0; text-align: right; overflow-wrap: anywhere }}
button {{ width: 100%; padding: .75rem; margin-top: .6rem; border-radius: 9px; border: 1px solid var(--line); font: inherit;
  font-weight: 600; cursor: pointer; background: transparent; color: inherit }}
button.go {{ background: var(--go); border-color: var(--go); color: #fff }}
button:focus-visible {{ outline: 3px solid var(--go); outline-offset: 2px }}
</style>
</head>
<body><main>
<div class="bank"><span>Your bank</span><b>Simulated</b></div>
{content}
</main></body>
</html>
"""


def challenge(intent: Json, card: Json) -> str:
    """Return the page that asks the cardholder."""
    asked = "<p>The shop wants to keep this card for later payments.</p>"
    if "amount" in intent:
        asked = f'<p class="amount">{html.escape(shown(intent["amount"], intent["currency"]))}</p>'
    rows = {
        "Card": f"{card['brand']} ending in {card['last4']}",
        "For": intent.get("description") or "a purchase at the shop",
        "Reference": intent["id"],
    }
    facts = "".join(f"<dt>{name}</dt><dd>{html.escape(str(value))}</dd>" for name, value in rows.items())
    return _FRAME.format(
        content=f"""<h1>Do you agree?</h1>
{asked}
<dl>{facts}</dl>
<form method="post">
<button class="go" name="succeed" value="true">Complete</button>
<button name="succeed" value="false">Fail</button>
</form>"""
    )


def over(intent: Json) -> str:
    """Return the page that has nothing to ask any more."""
    status = html.escape(intent["status"])
    return _FRAME.format(content=f"<h1>Nothing to do: {status}</h1><p>You may close this page.</p>")


def shown(amount: int, currency: str) -> str:
    """Return an amount as people write it."""
    decimals = 0 if currency in ZERO_DECIMALS else 3 if currency in THREE_DECIMALS else 2
    digits = str(amount).rjust(decimals + 1, "0")
    whole, rest = digits[: len(digits) - decimals], digits[len(digits) - decimals :]
    return f"{int(whole):,}{'.' if rest else ''}{rest} {currency.upper()}"
