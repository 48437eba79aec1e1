"""Random load and random faults together, from one seeded schedule; `soak.run` is the whole of it."""
