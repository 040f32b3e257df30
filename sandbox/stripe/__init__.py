"""A Stripe sandbox that speaks Stripe's wire format to the unmodified SDK."""
