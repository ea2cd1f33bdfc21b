"""What SynOps cost: joules on devices (energy.py, devices.py), and limits (budget.py)."""
