"""`python -m search` is `paredown`."""

from search.app import main

if __name__ == "__main__":
    main()
