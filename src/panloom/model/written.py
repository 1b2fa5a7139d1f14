"""What all documents have in common: mappings that a person wrote, a header, a body."""

from abc import abstractmethod
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from panloom.model import resources
from panloom.model.fields import Name

API_VERSION = "panloom/v1"


class Written(BaseModel):
    """A mapping in a document: unknown keys are refused, a key with nothing behind it counts as left out."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True, use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def _leave_out_nothing(cls, value: Any) -> Any:  # noqa: ANN401 -- what stood in the file, of any shape
        if not isinstance(value, dict):
            return value
        return {key: inner for key, inner in value.items() if inner is not None or key not in cls.model_fields}


class Spec(Written):
    """The body of a document, below its header."""

    @abstractmethod
    def resource(self, pan: str, name: str) -> resources.Resource:
        """Return what it means; ``pan`` is empty for what belongs to none."""


class Header(Written):
    """The head of every document."""

    apiVersion: Literal["panloom/v1"] = Field(examples=[API_VERSION])  # noqa: N815 -- as people know it from other tools
    kind: str = Field(examples=["PAN"])
    name: Name = Field(examples=["shop"])


class MemberHeader(Header):
    """The head of a document of something that belongs to a PAN."""

    pan: Name = Field(examples=["shop"])
