"""``python -m dnas.ops``: the reference of op types, in Markdown."""

from __future__ import annotations

from dnas.ops.reference import markdown

if __name__ == "__main__":
    print(markdown(), end="")
