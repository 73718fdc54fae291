"""Compare every .npz of a folder with our model: one line each, exit code 1 if any is over a tolerance.

An example that is over in float32 is compared in float64, too; its line says which of them held.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.parity.fixture import GRADIENT_TOLERANCE, OUTPUT_TOLERANCE, Errors, Verdict, judge


def main(arguments: list[str]) -> int:
    """Run the comparison and return the exit code."""
    if len(arguments) != 1 or not Path(arguments[0]).is_dir():
        print("usage: python -m tests.parity DIR   (a folder of worked examples, *.npz)", file=sys.stderr)
        return 2
    paths = sorted(Path(arguments[0]).glob("*.npz"))
    if not paths:
        print(f"no .npz in {arguments[0]}", file=sys.stderr)
        return 2
    print(f"tolerances: outputs and losses {OUTPUT_TOLERANCE:g}, gradients {GRADIENT_TOLERANCE:g}")
    failures = 0
    for path in paths:
        try:
            verdict = judge(path)
        except Exception as error:
            failures += 1
            print(f"{path.stem:24} ERROR {type(error).__name__}: {error}")
            continue
        failures += verdict.held is None
        print(f"{path.stem:24} {_shown(verdict.decisive)}  {_outcome(verdict)}")
    return 1 if failures else 0


def _shown(errors: Errors) -> str:
    return (
        f"outputs {errors.outputs:.1e}  losses {errors.losses:.1e}  gradients {errors.gradients:.1e}"
        f"  matching {'same' if errors.matching else 'DIFFERS'}"
    )


def _outcome(verdict: Verdict) -> str:
    if verdict.held == "float32":
        return "float32 ok"
    if verdict.held is None:
        return "float32 and float64 OVER"
    return f"(in float32 over: {_shown(verdict.single)})  float64 ok"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
