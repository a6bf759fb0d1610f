"""Prints how much memory this process holds, as it trains ($MEASURE=train) or evaluates again and again."""

import ctypes
import gc
import os
import sys
from pathlib import Path

import train_caption


def held() -> int:
    """KiB of memory in use, what is free inside the allocator given back."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // 1024


def measured(train_step, model, batch, progress):
    if progress.step % 100 == 0:
        print(f"held {held()}", flush=True)
    return train_step(model, batch, progress)


if __name__ == "__main__":
    if os.environ["MEASURE"] == "train":
        train_step = train_caption.train_step
        train_caption.train_step = lambda *arguments: measured(train_step, *arguments)
        train_caption.main()
    else:
        evaluate = train_caption.evaluate_splits

        def repeated(*arguments):
            for _ in range(int(os.environ["TIMES"])):
                metrics = evaluate(*arguments)
                print(f"held {held()}", flush=True)
            return metrics

        train_caption.evaluate_splits = repeated
        train_caption.main([*sys.argv[1:], "--evaluate"])
