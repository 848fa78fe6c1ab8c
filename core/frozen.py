"""The dataclass decorator of values that are made on every payment's way.

Room: core. `frozen=True` is for the type checker alone, which refuses every assignment to a field in product code.
At run time Python sets each field of a frozen class through `object.__setattr__`: 0.1 µs a field, 3 µs for a payment,
where plain assignment takes 0.4 (measured); a creation makes a dozen such values. They still compare and hash by value.
"""

from dataclasses import dataclass as _dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass
else:

    def dataclass(*, frozen=False, slots=False):
        return _dataclass(slots=slots, unsafe_hash=frozen)
