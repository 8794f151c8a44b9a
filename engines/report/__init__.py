"""One page about runs: what their numbers say, question by question."""
