"""Settings: the values that a configuration may hold, checked as they come in."""

from pydantic import BaseModel, ConfigDict


class Part(BaseModel):
    """A part of a configuration: unknown keys are errors, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
