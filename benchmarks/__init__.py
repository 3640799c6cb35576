"""Every published number: a script, its result file, and how to run it again."""
