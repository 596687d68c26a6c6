"""`python -m cluster.lab`."""

from cluster.lab.cli import main

if __name__ == "__main__":
    main()
