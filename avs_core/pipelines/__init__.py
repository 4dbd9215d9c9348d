"""Ray wires: which stages a job chains, and on what it runs them."""
