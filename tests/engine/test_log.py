"""A resumed run draws its curves once."""

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from engine.log import Events


def test_steps_that_a_killed_run_repeats_are_drawn_once(tmp_path):
    config = {"tensorboard": True, "wandb": None}
    for steps_done, last in ((0, 5), (3, 6)):  # killed after step 5, resumed from a checkpoint of step 3
        events = Events(tmp_path, config, steps_done, is_first=True)
        for step in range(steps_done + 1, last + 1):
            events.write({"loss": steps_done + step / 10}, step)
        events.close()
    curves = EventAccumulator(str(tmp_path)).Reload()
    drawn = [(event.step, round(event.value, 3)) for event in curves.Scalars("loss")]
    assert drawn == [(1, 0.1), (2, 0.2), (3, 0.3), (4, 3.4), (5, 3.5), (6, 3.6)]
