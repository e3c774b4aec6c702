"""The commands, one file each. `commands.cli` puts them together."""
