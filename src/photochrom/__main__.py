"""`python -m photochrom`."""

from photochrom.commands.cli import main

main()
