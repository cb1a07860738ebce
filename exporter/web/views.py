"""The newest view of each account, whatever thread asks."""

from exporter.core.view import AccountView


class Views:
    """The newest view of each account. A view is frozen and replaced as a whole."""

    def __init__(self) -> None:
        self._views: dict[str, AccountView] = {}

    def publish(self, view: AccountView) -> None:
        """Show ``view`` in place of the account's last one."""
        self._views = {**self._views, view.account: view}

    def forget(self, account: str) -> None:
        """Show nothing of an account any more."""
        self._views = {name: view for name, view in self._views.items() if name != account}

    def newest(self) -> list[AccountView]:
        """Return the newest view of each account."""
        return list(self._views.values())
