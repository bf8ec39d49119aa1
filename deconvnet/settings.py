"""Settings: the values that a configuration may hold, checked as they come in."""

from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, WrapValidator
from pydantic_core import PydanticCustomError


class Part(BaseModel):
    """A part of a configuration: unknown keys are errors, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def must_be(words: str) -> WrapValidator:
    """For a key that may hold one of several types: what is expected, said once, and not an error for each of them."""
    def check(value: Any, inner: Any) -> Any:
        try:
            return inner(value)
        except ValidationError:
            raise PydanticCustomError("expected", "must be {words}", {"words": words}) from None

    return WrapValidator(check)
