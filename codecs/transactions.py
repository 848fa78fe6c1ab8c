"""What the stores keep of a provider call, apart from its words (rest.py has those).

Room: codecs.
"""

LOOK_AGAIN_S = 5.0
"""When an attempt that stays open without an owner is looked at first (design §4)."""
OPEN_STATUSES = frozenset({"PENDING", "UNKNOWN"})
"""Transaction statuses that somebody has to look at."""
