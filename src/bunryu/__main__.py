"""``python -m bunryu``: the same as the command."""

from bunryu.cli import main

main()
