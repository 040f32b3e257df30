"""Pure rules that every domain shares: money, ids, time, refusals, state machines. No I/O, no third-party imports."""
