"""Contenders as CUDA graphs: what a step costs once its launches are free. This has never run on a GPU."""

from dataclasses import replace

import torch

from wgan_kernels._capture import record


def as_graphs(contenders, pools):
    """The contenders that a CUDA graph can hold, replaying; their pools of graphs; who cannot be captured, and why.

    One graph for each set of inputs, so that replays rotate over memory as eager calls do.
    """
    fit, graphs, unable = [], {}, []
    for contender in contenders:
        try:
            with contender.context():
                graphs[contender.name] = [(captured(contender.run, inputs),) for inputs in pools[contender.name]]
        except RuntimeError as error:
            unable.append({"contender": contender.name, "reason": f"no CUDA graph: {str(error).splitlines()[0]}"})
            continue
        fit.append(replace(contender, run=lambda replay: replay()))
    return fit, graphs, unable


def captured(run, inputs):
    """Replays ``run(*inputs)``, after three calls on a side stream that bring up workspaces and optimizer state."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            run(*inputs)
    torch.cuda.current_stream().wait_stream(side)
    replay, _ = record(lambda: run(*inputs), (), side)
    return replay
