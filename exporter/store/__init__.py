"""What must survive a restart, as tables of one database; nothing here decides or sends."""
