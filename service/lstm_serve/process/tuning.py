"""How often a process that serves looks for garbage."""

import gc

ALLOCATIONS_A_COLLECTION = 50_000  # a request of 1,024 sequences makes as many


def collect_seldom() -> None:
    """Leave what is loaded by now out of the garbage collections, and collect less often than at each 700 new lists.

    A body of 20 x 15 numbers is 21 lists, and 64 of them are alive at once; one of 256 sequences is 5,400, and as many
    once it is validated. With Python's own threshold a tenth of the processor's time went into looking them over.
    Requests leave no cycles; should one, it is gone within a minute.
    """
    gc.freeze()
    gc.set_threshold(ALLOCATIONS_A_COLLECTION)
    gc.enable()
