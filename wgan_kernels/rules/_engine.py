"""What a node of the autograd graph can know of the backward pass that runs it."""

import threading

import torch

# Which argument of a layer's node the weight is; such a node says has_weight.
_WEIGHT = 1


def asked_for(ctx):
    """For each tensor argument of a Function, in order: does the running backward pass want its gradient?

    ``ctx.needs_input_grad`` only says which arguments require one. ``autograd.grad(scores, x)`` wants the input's
    alone, and a weight gradient that is computed for nothing costs as much as a forward pass.
    """
    return [node is not None and will_run(node) for node, _ in ctx.next_functions]


def will_run(node):
    """Whether the running backward pass comes to this node, and has something to do there."""
    leaf = getattr(node, "variable", None)
    if leaf is not None and not leaf.requires_grad:  # not any more: the engine would throw the gradient away
        return False
    try:
        return torch._C._will_engine_execute_node(node)
    except RuntimeError:  # a leaf that autograd.grad was asked for: the engine captures its gradient before the node
        return True


class _Pass(threading.local):
    """The backward pass that this thread runs, and the nodes behind which it has looked for leaves."""

    task = None
    seen = None


_pass = _Pass()


def leaves_behind(ctx):
    """The leaves from which a node's arguments were made, each told once in a backward pass.

    Left out are weights whose layer this pass runs through: they receive a gradient of their own.
    """
    task = torch._C._current_graph_task_id()
    if _pass.task != task:
        _pass.task, _pass.seen = task, set()
        torch.autograd.Variable._execution_engine.queue_callback(_pass.seen.clear)
    leaves, stack = [], [ctx]
    while stack:
        node = stack.pop()
        if hasattr(node, "variable"):
            leaves.append(node.variable)
            continue
        skip = _WEIGHT if getattr(node, "has_weight", False) and will_run(node) else None
        for argument, (behind, _) in enumerate(node.next_functions):
            if behind is not None and argument != skip and behind not in _pass.seen:
                _pass.seen.add(behind)
                stack.append(behind)
    return leaves
