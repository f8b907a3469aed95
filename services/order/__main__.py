"""Place an order from the command line: `python -m services.order place --help`."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence

from pydantic import ValidationError

from headrace.aws.client import open_ports
from headrace.client import send
from headrace.envelope import Outgoing
from headrace.errors import HeadraceError
from schemas.order import Customer, OrderLine, PlaceOrder
from services.order.app import order


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        sent = asyncio.run(_send(_command(options), options.id))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        sys.stderr.write(f"The order was not sent: {first['loc'][-1]}: {first['msg']}.\n")
        return 2
    except HeadraceError as error:
        sys.stderr.write(f"The order was not sent: {error}\n")
        return 1
    sys.stdout.write(f"sent {sent.detail_type} {options.order_id} as {sent.id}\n")
    return 0


async def _send(command: PlaceOrder, id: str | None) -> Outgoing:
    async with open_ports() as ports:
        ids = None if id is None else [id]
        [sent] = await send(ports, [command], bus=order.bus, ids=ids)
        return sent


def _command(options: argparse.Namespace) -> PlaceOrder:
    return PlaceOrder(
        order_id=options.order_id,
        customer=Customer(name=options.name, email=options.email),
        lines=tuple(options.line),
        currency=options.currency,
    )


def _line(text: str) -> OrderLine:
    try:
        sku, quantity, price = text.split(":")
        return OrderLine.model_validate({"sku": sku, "quantity": quantity, "unit_price": price})
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no line: write SKU:QUANTITY:PRICE, such as MUG-350:2:14.00"
        ) from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m services.order")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    place = commands.add_parser("place", help="send a PlaceOrder to the order service")
    place.add_argument("--order-id", required=True)
    place.add_argument(
        "--line", type=_line, action="append", required=True, metavar="SKU:QUANTITY:PRICE"
    )
    place.add_argument("--name", default="A Customer")
    place.add_argument("--email", default="customer@example.com")
    place.add_argument("--currency", default="EUR")
    place.add_argument("--id", help="the command's id; again under the same id is a duplicate")
    return parser


if __name__ == "__main__":
    sys.exit(main())
