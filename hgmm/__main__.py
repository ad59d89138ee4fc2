"""``python -m hgmm`` is the same as ``hgmm``."""

from __future__ import annotations

from hgmm.cli import main

if __name__ == "__main__":
    main(prog_name="hgmm")
