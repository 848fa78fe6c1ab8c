"""Fixtures that several files here share."""

from rigs.table_rig import make_rig, rig

__all__ = ["make_rig", "rig"]
