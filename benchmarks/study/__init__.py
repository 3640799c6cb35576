"""Is the search any good? ``python -m benchmarks.study`` remakes each table and figure of docs/study.md."""
