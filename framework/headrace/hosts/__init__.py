"""Where services run: Lambda, a worker, one local process, an embedded emulator."""
