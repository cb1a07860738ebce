"""The Cartesia API: only here are its URLs, headers and JSON known; nothing is stored or told."""
