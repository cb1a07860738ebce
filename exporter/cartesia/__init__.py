"""Client of the Cartesia API. No other package knows its URLs, headers and JSON."""
