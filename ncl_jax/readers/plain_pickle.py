"""Pickles as data: containers, text and numbers, and nothing that runs, in bounded memory and time.

Python's own reader, opcode by opcode, without those that ask for memory before there are bytes for
it, and with keys of dicts that take no longer to hash than to read.
"""

import io
import pickle
from typing import Any, NoReturn

_Reader: Any = pickle._Unpickler  # the one in Python: opcodes can be left out
_REFUSED = (
    pickle.BYTEARRAY8, pickle.NEXT_BUFFER, pickle.READONLY_BUFFER,  # memory before bytes
    pickle.LONG4, pickle.EMPTY_SET, pickle.ADDITEMS, pickle.FROZENSET,  # slow to hash
    pickle.EXT1, pickle.EXT2, pickle.EXT4, pickle.INST, pickle.OBJ, pickle.NEWOBJ_EX,
    pickle.PERSID,
)  # fmt: skip
_LARGEST_KEY = 1 << 32


class PlainUnpickler(_Reader):  # type: ignore[misc]
    """Reads one pickle; a subclass says which names it knows, by `find_class`.

    What a subclass returns there must be safe to call with any arguments, any number of times.

    Args:
      data: the pickle.
    """

    def __init__(self, data: bytes):
        super().__init__(io.BytesIO(data))

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("it refers to something outside of it")

    def _refuse(self) -> NoReturn:
        raise pickle.UnpicklingError("it holds what plain data does not")

    def _dict(self) -> None:
        items = self.pop_mark()  # which changes what `append` is
        self.append(as_dict(_pairs(items)))

    def _set_item(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        _filled(self.stack[-1], [(key, value)])

    def _set_items(self) -> None:
        items = self.pop_mark()
        _filled(self.stack[-1], _pairs(items))

    def _build(self) -> None:
        """State of what a subclass knows; of anything else, it is left out."""
        state = self.stack.pop()
        if (take := getattr(type(self.stack[-1]), "take_state", None)) is not None:
            take(self.stack[-1], state)

    dispatch = _Reader.dispatch | dict.fromkeys([code[0] for code in _REFUSED], _refuse)
    dispatch |= {
        pickle.DICT[0]: _dict, pickle.SETITEM[0]: _set_item, pickle.SETITEMS[0]: _set_items,
        pickle.BUILD[0]: _build,
    }  # fmt: skip


def as_dict(pairs: Any = ()) -> dict[Any, Any]:
    """What `dict` or `OrderedDict` are called with in a pickle: pairs, or a dict.

    Raises:
      UnpicklingError: a key is no text, bytes, small number or None.
    """
    made: dict[Any, Any] = {}
    _filled(made, list(pairs.items() if isinstance(pairs, dict) else pairs))
    return made


def _filled(target: Any, pairs: list[tuple[Any, Any]]) -> None:
    if type(target) is not dict:
        raise pickle.UnpicklingError("it sets an item of what is no dict")
    for key, value in pairs:
        small = isinstance(key, (int, float)) and abs(key) < _LARGEST_KEY
        if not small and not isinstance(key, (str, bytes, type(None))):
            raise pickle.UnpicklingError("it has a key that is neither text nor a small number")
        target[key] = value


def _pairs(items: list[Any]) -> list[tuple[Any, Any]]:
    return list(zip(items[::2], items[1::2], strict=True))
