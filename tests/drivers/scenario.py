"""What the scenarios share: where to connect, and a transcript that is the same wherever one is connected to.

usage: <scenario>.py HOST PORT USER PASSWORD DATABASE TAG

TAG tells apart clients that run the same scenario at once: their tables, channels and settings carry it.
"""
import re
import sys

HOST, PORT, USER, PASSWORD, DATABASE, TAG = sys.argv[1:7]
DSN = f"postgresql://{USER}:{PASSWORD}@{HOST}:{PORT}/{DATABASE}"


def show(what, value):
    """Prints one line of the transcript, without what legitimately differs from run to run."""
    text = f"{what}: {value!r}".replace(TAG, "TAG")
    print(re.sub(r"0x[0-9a-f]{6,}", "0x..", text), flush=True)


def error_of(exception):
    """An error as its SQLSTATE and first line."""
    state = getattr(exception, "sqlstate", None) or getattr(exception, "pgcode", None)
    return f"{type(exception).__name__} {state} {str(exception).splitlines()[0] if str(exception) else ''}"
