"""Property of the session machine: over random faults nothing is lost, doubled, out of order or left unanswered."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from simulation import Simulation

STEPS = 400


@settings(max_examples=300, deadline=None, print_blob=True)
@given(seed=st.integers(0, 2**32 - 1))
def test_random_faults_lose_and_double_nothing(seed: int) -> None:
    simulation = Simulation(seed)
    for _ in range(STEPS):
        simulation.random_step()
    simulation.drain()
    simulation.judge()
