"""`python -m search` is `paredown`."""

from search.cli.app import main

if __name__ == "__main__":
    main()
