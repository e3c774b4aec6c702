"""The commands, one file each; `photochrom.cli` puts them together."""
