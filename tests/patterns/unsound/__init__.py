"""Published examples of unsound nets, and some that are unsound elsewhere and not here."""

from __future__ import annotations

from tests.patterns.unsound.case import Shows, SoundHere, Unsound
from tests.patterns.unsound.choices import CHOICES
from tests.patterns.unsound.merges import MERGES
from tests.patterns.unsound.rights import RIGHTS
from tests.patterns.unsound.sound_here import SOUND_HERE
from tests.patterns.unsound.threads import THREADS

UNSOUND: tuple[Unsound, ...] = (*CHOICES, *MERGES, *THREADS, *RIGHTS)

__all__ = ["SOUND_HERE", "UNSOUND", "Shows", "SoundHere", "Unsound"]
