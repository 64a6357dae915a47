"""`python -m hpsearch`: the same as the command `hpsearch`."""

import sys

if __name__ == "__main__":
    if not sys.flags.safe_path:
        del sys.path[0]  # the working folder: a file of it, such as `random.py`, would hide the module of that name
    from hpsearch.cli.main import main

    main()
