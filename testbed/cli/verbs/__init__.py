"""One file per command; the file's name is the command's.

Each module offers ``HELP`` (a sentence), ``EXAMPLE`` (command lines), ``arguments(parser)`` and
``run(args, console) -> int`` (the exit code). Heavy imports stay inside ``run``, so that ``--help``
answers at once.
"""
