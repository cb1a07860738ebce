"""Environment variables that the configuration is made of where the file is silent."""

from typing import Final

API_KEY: Final = "CARTESIA_API_KEY"
API_KEY_FILE: Final = "CARTESIA_API_KEY_FILE"
ACCOUNT_VARIABLES: Final = {"base_url": "CARTESIA_BASE_URL", "api_version": "CARTESIA_VERSION"}
RECEIVER_VARIABLES: Final = {
    "slack": "CARTESIA_EXPORTER_SLACK_URL",
    "webhook": "CARTESIA_EXPORTER_WEBHOOK_URL",
}
STORAGE_VARIABLE: Final = "CARTESIA_EXPORTER_STORAGE_PATH"
STORAGE_URL_VARIABLE: Final = "CARTESIA_EXPORTER_STORAGE_URL"

OVERRIDDEN_BY: Final = {
    **dict.fromkeys((API_KEY, API_KEY_FILE, *ACCOUNT_VARIABLES.values()), "lists accounts"),
    **dict.fromkeys(RECEIVER_VARIABLES.values(), "lists receivers"),
    STORAGE_VARIABLE: "sets storage.path",
    STORAGE_URL_VARIABLE: "sets storage.path or storage.url",
}
"""Every variable, and what the file does when the variable has no effect."""
