"""How the parser takes an option that may be left out: as the same option that may not."""

from __future__ import annotations

import types
from typing import Any, Literal, Union, get_args, get_origin

from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

__all__ = ["registry"]

registry = ConstructorRegistry()
"""For `tyro.cli`. By itself it offers `{None,a,b}` for `Literal["a", "b"] | None`, and takes the word None."""


@registry.primitive_rule
def _optional_choice(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """`Literal[...] | None` and `bool | None`: the choices alone; None is what there is without the option."""
    kinds = [kind for kind in get_args(info.type) if kind is not types.NoneType]
    if (
        info.type_origin not in (Union, types.UnionType)
        or len(kinds) != 1
        or kinds == list(get_args(info.type))
    ):
        return None
    if kinds[0] is bool:
        values: dict[str, Any] = {"True": True, "False": False}
    elif get_origin(kinds[0]) is Literal:
        values = {str(value): value for value in get_args(kinds[0])}
    else:
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=f"{{{','.join(values)}}}",
        instance_from_str=lambda words: values[words[0]],
        is_instance=lambda value: value is None or value in values.values(),
        str_from_instance=lambda value: [str(value)],
        choices=tuple(values),
    )
