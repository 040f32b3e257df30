"""Benchmarks: programs that people run. Machines differ, so each figure is a ratio of two things measured in turn in one run;
absolute rates, CPU per operation and latencies stand beside it. A figure whose books do not hold afterwards is void."""
