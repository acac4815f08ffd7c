"""Run the command line as `python -m labelmill`."""

from labelmill.cli import main

main()
