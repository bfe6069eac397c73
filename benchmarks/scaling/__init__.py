"""How far a fleet goes: measured costs, the arithmetic on them, and a simulation of its policy."""
