"""`python -m ganpipe` is the `ganpipe` command."""

from .cli import main

raise SystemExit(main())
