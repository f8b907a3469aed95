"""Takes orders, and ends each of them once: confirmed or cancelled."""
