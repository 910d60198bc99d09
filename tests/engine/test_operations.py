"""The engine's operations are a closed set."""

import pkgutil
from importlib import import_module

from lstm_serve.engine import operations
from lstm_serve.engine.operations import OPERATIONS
from lstm_serve.engine.operations.base import BaseOperation, KernelOperation, Operation, SpreadOperation
from lstm_serve.engine.recurrence import Recurrent

BASES = {Operation, BaseOperation, KernelOperation, SpreadOperation, Recurrent}


def test_every_operation_is_in_the_set() -> None:
    modules = [
        import_module(f"{operations.__name__}.{found.name}") for found in pkgutil.iter_modules(operations.__path__)
    ]
    classes = {value for module in modules for value in vars(module).values() if isinstance(value, type)}
    assert {kind for kind in classes if hasattr(kind, "output_shapes")} - BASES == set(OPERATIONS)


def test_the_set_stays_small() -> None:
    assert len(set(OPERATIONS)) == len(OPERATIONS) <= 32
