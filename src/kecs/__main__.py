"""`python -m kecs`: the command line."""

from kecs.cli.main import main

if __name__ == "__main__":
    main()
