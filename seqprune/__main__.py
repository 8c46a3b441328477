"""``python -m seqprune``, which ``torchrun`` starts as well."""

from seqprune.cli.app import main

if __name__ == "__main__":
    main()
