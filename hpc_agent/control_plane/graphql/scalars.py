"""Scalars that GraphQL itself lacks."""

from __future__ import annotations

from ariadne import ScalarType

# Storage ids outgrow GraphQL's 32-bit Int.
big_int = ScalarType("BigInt", serializer=int, value_parser=int)
json_string = ScalarType("JSONString", serializer=str, value_parser=str)
generic = ScalarType("GenericScalar")

bindables = [big_int, json_string, generic]
