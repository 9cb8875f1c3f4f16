"""Soak runs: a market that does job after job for hours, and what its processes take of memory and
disk meanwhile. ``scripts/soak`` runs them; they are no tests."""
