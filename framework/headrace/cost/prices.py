"""Prices, with their date and region, from one file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from headrace.errors import ConfigurationError

PRICES: Final = Path(__file__).with_name("prices.json")
"""The prices that come with headrace."""


class Price(BaseModel):
    """So many dollars for so many units, as the named page of AWS says."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    usd: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    per: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    unit: str
    page: str
    note: str = ""

    def of(self, count: float) -> float:
        """Dollars for this many units."""
        return count * self.usd / self.per

    def __str__(self) -> str:
        several = {1: "", 1e6: " M"}.get(self.per, f" {self.per:g}")
        return f"${self.usd:.10g}/{several.strip() + ' ' if several else ''}{self.unit}"


class PriceList(BaseModel):
    """What AWS asks for, by what it asks for it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sqs_standard: Price
    sqs_fair: Price
    sqs_fifo: Price
    events: Price
    schedules: Price
    writes: Price
    reads: Price
    lambda_requests: Price
    lambda_duration: Price
    fargate_vcpu: Price
    fargate_memory: Price
    logs: Price
    vpc_endpoint: Price


class Prices(BaseModel):
    """A file of prices: of one region, on one date."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    date: Annotated[str, Field(pattern=r"^\d{4}-\d{2}(-\d{2})?$")]
    region: Annotated[str, Field(min_length=1)]
    currency: Annotated[str, Field(pattern="^USD$")] = "USD"
    prices: PriceList


def load_prices(file: Path = PRICES, *, region: str | None = None) -> Prices:
    """The prices in a file. Raises `ConfigurationError` for one that cannot be read, has other
    content, or is of another region than the one that is wanted."""
    try:
        prices = Prices.model_validate_json(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise ConfigurationError(f"{file} cannot be read: {why}.") from error
    except ValidationError as error:
        raise ConfigurationError(f"{file} is no file of prices: {_first(error)}") from error
    if region is not None and region != prices.region:
        raise ConfigurationError(
            f"{file} has the prices of {prices.region}, and this is to be for {region}: copy it, "
            f"write the prices of {region} into the copy, and name that with --prices."
        )
    return prices


def _first(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(map(str, first['loc'])) or 'the whole'}: {first['msg']}."
