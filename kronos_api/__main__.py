"""`python -m kronos_api` is `kronos-api`."""

from kronos_api.cli import main

main()
