"""The losses of pre-training (Eqs. 6-8), and whether the policy learns."""
