"""Throw bad input at every entry: `python -m tests.hostile [--only TEXT] [--every N] [--write docs/reliability.md]`"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

from tests.hostile import harness
from tests.hostile.harness import Table, run_cases
from tests.hostile.suite import all_cases, limited_machine, put_into


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.hostile", description=__doc__)
    parser.add_argument("--only", default="", help="cases with this in their names")
    parser.add_argument("--every", type=int, default=1, help="each N-th case alone")
    parser.add_argument("--write", type=Path, help="put the counts into this page")
    parser.add_argument("--seconds", type=int, default=harness.SECONDS, help="that a case may take")
    flags = parser.parse_args()
    harness.SECONDS = flags.seconds
    page = flags.write and flags.write.absolute()
    table = Table()
    with tempfile.TemporaryDirectory() as scratch, limited_machine(Path(scratch)):
        from tests.hostile.home import ENTRIES, build_home

        home = build_home(Path(scratch) / "home")
        cases = [case for case in all_cases() if flags.only in str(case)][:: flags.every]
        wrong = run_cases(
            cases, ENTRIES, home, Path(scratch) / "cases", table, lambda text: print(text + "\n", flush=True)
        )
        os.chdir("/")
    print(table.markdown())
    print(f"{len(wrong)} of {len(cases):,} cases are wrong; {table.seconds:.0f} s")
    if page:
        put_into(page, table)
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
