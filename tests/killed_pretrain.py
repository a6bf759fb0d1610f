"""pretrain.py of which processes ($KILLED, by rank) are killed before step $STEP, in their first life."""

import os
import signal

import pretrain

train_step = pretrain.train_step


def killed(config, model, batch, progress):
    first_life = os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
    if first_life and os.environ["RANK"] in os.environ["KILLED"].split() and progress.step == int(os.environ["STEP"]):
        os.kill(os.getpid(), signal.SIGKILL)
    return train_step(config, model, batch, progress)


if __name__ == "__main__":
    pretrain.train_step = killed
    pretrain.main()
