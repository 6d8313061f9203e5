"""`python -m jvae COMMAND`, the same as the program `jvae`."""

import sys

from jvae.commands.main import main

if __name__ == "__main__":
    sys.exit(main())
