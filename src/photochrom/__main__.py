"""`python -m photochrom`."""

from photochrom.cli import main

main()
