"""``python -m bunryu``: the same as the command."""

from bunryu.cli import main

if __name__ == "__main__":
    main()
