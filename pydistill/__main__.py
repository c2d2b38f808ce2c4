"""``python -m pydistill``."""

from pydistill.cli import main

if __name__ == "__main__":
    main()
