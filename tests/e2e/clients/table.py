"""A table of cases, each a function of its own: `ok CASE` for those that pass, the trace of those that do not."""

import sys
import traceback

CASES = []


def case(function):
    CASES.append(function)
    return function


def run(*arguments):
    failed = False
    for function in CASES:
        try:
            function(*arguments)
            print("ok", function.__name__, flush=True)
        except Exception:
            failed = True
            print("FAILED", function.__name__, flush=True)
            print(traceback.format_exc(), flush=True)
    sys.exit(failed)
