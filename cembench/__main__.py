"""`python -m cembench`: the command line without the installed script."""

from cembench.cli import main

if __name__ == "__main__":
    main(prog_name="cembench")
