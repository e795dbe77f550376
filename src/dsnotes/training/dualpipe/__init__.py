"""DualPipe: a bidirectional pipeline schedule, generated, timed, and run on real processes.

    actions    the vocabulary: forward, backward and its two parts, overlapped pair, schedule
    schedule   who does what after what: 1F1B, ZB1P, DualPipe and DualPipeV
    timeline   when each action runs, idle time, live activations, and the formulas of the paper
    bubble     idle times in closed form, also where the formulas of the paper do not hold
    split      the backward pass cut in two: gradients of inputs now, of weights later
    rounds     which messages travel when
    channels   the messages between ranks
    clock      when actions really run
    runtime    one rank of a pipeline: runs its actions, on any launcher
    sharing    what several ranks hold, and the sum of its gradients
    processes  starts the ranks as processes of this machine, watches over them, ends them
    launch     one step on such processes: all stages in, all gradients out
    worker     what such a process runs
    engine     the same step on torch's own schedule, the one to use for real training
    __main__   one step under torchrun

The first four and `rounds` need no torch. `dsnotes.figures.pipeline` draws schedules, and traces of
real runs.
"""
