"""`python -m multistep`, where the program is not on the path."""

from multistep.cli import main

if __name__ == "__main__":
    main()
