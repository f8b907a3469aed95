"""From what a dead-letter queue holds to letters with their reasons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from headrace.dlq.letters import Letter, read_letter
from headrace.dlq.reasons import Logged, reconstructed
from headrace.dlq.records import Records, Standing
from headrace.ports import Delivery, Ports
from headrace.service import Service


class Reader:
    """Reads the letters of one queue of a service. `logs` help where there is no note."""

    def __init__(
        self, service: Service, source: str, ports: Ports, logs: Mapping[str, Logged] | None = None
    ) -> None:
        self.records = Records(service, ports)
        self._service = service
        self._source = source
        self._logs = logs or {}

    async def read(self, deliveries: Sequence[Delivery]) -> list[Letter]:
        """The letters, in this order. Raises `CloudError`."""
        letters = [read_letter(self._service, self._source, each) for each in deliveries]
        standings = await self.records.of([letter for letter in letters if not letter.reason])
        receives = self._service.queue_settings.max_receive_count
        return [
            reconstructed(letter, standings.get(letter.id, Standing()), self._logs, receives)
            for letter in letters
        ]
