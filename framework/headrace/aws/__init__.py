"""The adapters: the only place in headrace that calls AWS."""
