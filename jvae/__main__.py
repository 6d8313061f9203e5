"""`python -m jvae COMMAND`, the same as the program `jvae`."""

from jvae.commands.main import script

if __name__ == "__main__":
    script()
