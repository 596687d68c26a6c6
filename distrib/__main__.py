"""`python -m distrib` is the command `distrib`."""

from distrib.cli.main import main

if __name__ == "__main__":
    main()
